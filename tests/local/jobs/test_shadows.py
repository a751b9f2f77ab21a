"""Shadow variants: they receive copies of requests, and they neither delay nor fail the requests of clients."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.resources.endpoints import capture_writer, shadows
from microjobs_orchestrator.local.runtimes.base import Exit
from microjobs_orchestrator.local.services import sagemaker_runtime
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import ImageBehaviour, ReceivedRequest, Reply
from tests.local.jobs.test_data_capture import list_records, make_capture_config
from tests.local.jobs.test_endpoints_invocations import Invoker
from tests.local.jobs.test_endpoints_updates import update_weights
from tests.polling import wait_until

LOG_GROUP = "/aws/sagemaker/Endpoints/e"


@pytest.fixture
def shadow(parts: ServerParts, model: ImageBehaviour) -> ImageBehaviour:  # noqa: ARG001  the production variant serves `model`
    """The behaviour of the image `shadow`; creates the model `s` with this image."""
    parts.runtime.behaviours["shadow"] = ImageBehaviour()
    parts.make_model("s", "shadow")
    return parts.runtime.behaviours["shadow"]


def make_shadow_config(**members: Any) -> dict[str, Any]:
    variant = {"VariantName": "copy", "ModelName": "s", "InstanceType": "ml.m5.large", **members}
    return {"ShadowProductionVariants": [variant]}


def deploy(parts: ServerParts, **members: Any) -> Invoker:
    parts.make_config(config_members={**make_shadow_config(), **members})
    parts.start_endpoint()
    assert parts.wait_for_endpoint()["EndpointStatus"] == "InService"
    return Invoker(parts)


def set_random_values(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    iterator = iter(values)
    monkeypatch.setattr(shadows, "_random", lambda: next(iterator))


def test_shadow_receives_copies_and_its_responses_are_dropped(
    parts: ServerParts, model: ImageBehaviour, shadow: ImageBehaviour
) -> None:
    shadow.invoke = lambda _: Reply(b"shadow")
    response = deploy(parts)(b"1,2", Content_Type="text/csv", X_Amzn_SageMaker_Target_Variant="main")
    assert response.data == b"1,2"
    assert response.headers["x-Amzn-Invoked-Production-Variant"] == "main"
    wait_until(lambda: shadow.requests)
    (original,), (copy,) = model.requests, shadow.requests
    assert (copy.body, copy.headers["Content-Type"]) == (original.body, "text/csv")
    assert "X-Amzn-Sagemaker-Target-Variant" not in {name.title() for name in copy.headers}


def test_weight_is_the_share_of_copied_requests(
    parts: ServerParts, shadow: ImageBehaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_random_values(monkeypatch, 0.0, 0.24, 0.25, 0.99)
    parts.make_config(main={"InitialVariantWeight": 4.0}, config_members=make_shadow_config(InitialVariantWeight=1.0))
    parts.start_endpoint()
    parts.wait_for_endpoint()
    for number in range(4):
        Invoker(parts)(b"%d" % number)
    wait_until(lambda: len(shadow.requests) == 2)
    assert {request.body for request in shadow.requests} == {b"0", b"1"}


def test_requests_cannot_target_a_shadow(parts: ServerParts, shadow: ImageBehaviour) -> None:
    error = deploy(parts).read_error(X_Amzn_SageMaker_Target_Variant="copy")
    assert "no production variant copy" in error.message
    assert shadow.requests == []


@pytest.mark.parametrize(
    "respond", [lambda _: Reply(b"no", 500), lambda _: Reply(b"x" * 11)], ids=["error", "oversized"]
)
def test_failing_shadow_does_not_fail_the_client(
    parts: ServerParts,
    shadow: ImageBehaviour,
    respond: Callable[[ReceivedRequest], Reply],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sagemaker_runtime, "MAX_RESPONSE_BYTES", 10)
    shadow.invoke = respond
    invoke = deploy(parts)
    assert [invoke(b"x").data for _ in range(3)] == [b"x"] * 3
    wait_until(lambda: len(shadow.requests) == 3)


def test_ended_shadow_does_not_fail_the_client(parts: ServerParts, shadow: ImageBehaviour) -> None:
    invoke = deploy(parts)
    shadow.ping = 503
    next(host for host in parts.running_hosts if host.behaviour is shadow).end(Exit(1))
    assert invoke().data == b"x"
    assert parts.describe_endpoint()["EndpointStatus"] == "InService"


def test_slow_shadow_delays_no_client(
    parts: ServerParts, shadow: ImageBehaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadows, "MAX_PENDING_COPIES", 2)
    release = threading.Event()

    def respond_when_released(_: ReceivedRequest) -> Reply:
        release.wait(10)
        return Reply()

    shadow.invoke = respond_when_released
    invoke = deploy(parts)
    assert [invoke().data for _ in range(5)] == [b"x"] * 5
    release.set()
    wait_until(lambda: "requests were not copied to the shadow variant (3)" in str(parts.read_log(LOG_GROUP)))
    wait_until(lambda: len(shadow.requests) == 2)  # the note is written after the first of the two copies


def test_exchanges_of_both_variants_are_captured(
    parts: ServerParts, shadow: ImageBehaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_writer, "FLUSH_SECONDS", 0.05)
    shadow.invoke = lambda _: Reply(b"shadow")
    deploy(parts, **make_capture_config())()
    wait_until(lambda: len(list(list_records(parts))) == 2)
    folders = {item.key.split("/")[2] for item in parts.context.store.list("bucket", "captured/")}
    assert folders == {"main", "copy"}


def test_invocations_of_both_variants_are_counted(parts: ServerParts, shadow: ImageBehaviour) -> None:
    shadow.invoke = lambda _: Reply(b"no", 500)
    deploy(parts)()
    wait_until(lambda: read_metric(parts, "Invocations") == {"main": 1.0, "copy": 1.0})
    assert read_metric(parts, "Invocation5XXErrors") == {"main": 0.0, "copy": 1.0}


def read_metric(parts: ServerParts, name: str) -> dict[str, float]:
    """Return the sums of a metric, by variant."""
    metrics = parts.context.metrics
    return {
        dict(series.dimensions)["VariantName"]: sum(point.statistics.total for point in metrics.read(series))
        for series, _ in metrics.list_series("AWS/SageMaker", name)
    }


def test_endpoint_describes_shadow(parts: ServerParts, shadow: ImageBehaviour) -> None:
    deploy(parts)
    (variant,) = parts.describe_endpoint()["ShadowProductionVariants"]
    assert (variant["VariantName"], variant["CurrentInstanceCount"]) == ("copy", 1)
    update_weights(parts, copy={"DesiredWeight": 0.0})
    (variant,) = parts.wait_for_endpoint()["ShadowProductionVariants"]
    assert variant["CurrentWeight"] == 0.0
    assert len(parts.runtime.started_hosts) == 2
    Invoker(parts)()
    parts.delete_endpoint()
    wait_until(lambda: parts.describe_endpoint()["EndpointStatus"] == "gone")
    assert shadow.requests == []
    assert parts.running_hosts == []


def test_update_can_add_and_remove_the_shadow(parts: ServerParts, shadow: ImageBehaviour) -> None:
    parts.deploy()
    parts.make_config("d", config_members=make_shadow_config())
    parts.update_endpoint("d")
    assert parts.wait_for_endpoint()["EndpointConfigName"] == "d"
    Invoker(parts)()
    wait_until(lambda: shadow.requests)
    parts.update_endpoint("c")
    description = parts.wait_for_endpoint()
    assert "ShadowProductionVariants" not in description or description["ShadowProductionVariants"] is None
    wait_until(lambda: len(parts.running_hosts) == 1)


def test_restarted_server_copies_to_the_same_shadow(parts: ServerParts, shadow: ImageBehaviour) -> None:
    deploy(parts)
    restarted_parts = parts.restart()
    try:
        wait_until(lambda: _is_responding(restarted_parts))
        wait_until(lambda: shadow.requests)
        assert len(parts.runtime.started_hosts) == 2
    finally:
        restarted_parts.close()


def _is_responding(parts: ServerParts) -> bool:
    try:
        return bool(Invoker(parts)().data == b"x")
    except ServiceError:
        return False


def test_unhealthy_shadow_fails_the_endpoint(parts: ServerParts, shadow: ImageBehaviour) -> None:
    shadow.exit_at_start = Exit(1)
    parts.make_config(config_members=make_shadow_config())
    parts.start_endpoint()
    description = parts.wait_for_endpoint()
    assert description["EndpointStatus"] == "Failed"
    assert "for shadow variant copy did not pass the ping health check" in description["FailureReason"]


@pytest.mark.usefixtures("shadow")
def test_unsupported_combinations_are_refused(parts: ServerParts) -> None:
    with pytest.raises(
        ValidationError, match="one production and one shadow variant, not 2 production variants and 1 "
    ):
        parts.make_config(one={}, two={}, config_members=make_shadow_config())
    output = {"OutputConfig": {"S3OutputPath": "s3://bucket/out"}}
    with pytest.raises(ValidationError, match="ShadowProductionVariants is not supported together with Async"):
        parts.make_config("c", asynchronous=output, config_members=make_shadow_config())
    parts.put("models/a.tar.gz", b"")
    parts.make_model("several", "elsewhere", Mode="MultiModel", ModelDataUrl="s3://bucket/models/")
    with pytest.raises(ValidationError, match="with a shadow variant does not support models with Mode MultiModel"):
        parts.make_config(main={"ModelName": "several"}, config_members=make_shadow_config())
    with pytest.raises(ValidationError, match="VariantNames"):
        parts.make_config(copy={}, config_members=make_shadow_config())
