"""Serverless variants: requests start the container, an idle container stops, and requests have limits."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.resources.endpoints import serverless
from microjobs_orchestrator.local.resources.endpoints.endpoint import Endpoint
from microjobs_orchestrator.local.runtimes.base import Exit
from microjobs_orchestrator.local.services import sagemaker_runtime
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import ImageBehaviour, ReceivedRequest, Reply
from tests.local.jobs.test_data_capture import make_capture_config
from tests.local.jobs.test_endpoints_invocations import Invoker
from tests.local.jobs.test_endpoints_updates import update_weights
from tests.local.jobs.test_shadows import make_shadow_config, read_metric
from tests.polling import wait_until

LOG_GROUP = "/aws/sagemaker/Endpoints/e"
SERVERLESS_CONFIG = {"MemorySizeInMB": 2048, "MaxConcurrency": 2}


def set_idle_timeout(parts: ServerParts, seconds: float) -> None:
    settings = replace(parts.context.settings, serverless_idle_seconds=seconds)
    parts.context = replace(parts.context, settings=settings)


@pytest.fixture
def short_idle_timeout(parts: ServerParts) -> None:
    set_idle_timeout(parts, 0.1)


def make_config(parts: ServerParts, name: str = "c", **members: Any) -> None:
    """Create a configuration with one serverless variant. `members` changes its ServerlessConfig."""
    variant = {"VariantName": "main", "ModelName": "m", "ServerlessConfig": {**SERVERLESS_CONFIG, **members}}
    parts.make_config(name, config_members={"ProductionVariants": [variant]})


def deploy(parts: ServerParts, **members: Any) -> Invoker:
    make_config(parts, **members)
    parts.start_endpoint()
    assert parts.wait_for_endpoint()["EndpointStatus"] == "InService"
    return Invoker(parts)


def wait_for_stop(parts: ServerParts) -> None:
    wait_until(lambda: parts.runtime.hosts == {})


class Gate:
    """A gate that holds the responses of a model until a test opens it."""

    def __init__(self, model: ImageBehaviour) -> None:
        self.is_open = threading.Event()
        model.invoke = self.respond

    def respond(self, request: ReceivedRequest) -> Reply:
        self.is_open.wait(10)
        return Reply(request.body)


@pytest.mark.usefixtures("model", "short_idle_timeout")
def test_idle_container_stops_and_a_request_starts_it(parts: ServerParts) -> None:
    invoke = deploy(parts)
    wait_for_stop(parts)
    assert parts.describe_endpoint()["EndpointStatus"] == "InService"
    assert invoke(b"1").data == b"1"
    assert len(parts.runtime.started_hosts) == 2
    wait_for_stop(parts)
    (lines,) = parts.read_log(LOG_GROUP).values()
    assert "[microjobs] the container is stopped after 0.1 s without a request" in lines
    assert any(line.startswith("[microjobs] the container was started within") for line in lines)


@pytest.mark.usefixtures("short_idle_timeout")
def test_start_of_the_container_counts_as_overhead_latency(parts: ServerParts, model: ImageBehaviour) -> None:
    invoke = deploy(parts)
    wait_for_stop(parts)
    model.ping = 503
    with ThreadPoolExecutor() as pool:
        response = pool.submit(invoke)
        wait_until(lambda: parts.running_hosts)
        time.sleep(0.3)
        model.ping = 200
        response.result(20)
    assert read_metric(parts, "OverheadLatency")["main"] > 0.3e6
    assert read_metric(parts, "ModelLatency")["main"] < 0.2e6
    assert read_metric(parts, "ModelSetupTime")["main"] > 0.3e6


@pytest.mark.usefixtures("short_idle_timeout")
def test_container_is_not_stopped_during_a_request(parts: ServerParts, model: ImageBehaviour) -> None:
    gate = Gate(model)
    invoke = deploy(parts)
    with ThreadPoolExecutor() as pool:
        response = pool.submit(invoke)
        wait_until(lambda: model.requests)
        time.sleep(0.3)
        assert len(parts.running_hosts) == 1
        gate.is_open.set()
        assert response.result().data == b"x"


@pytest.mark.usefixtures("model", "short_idle_timeout")
def test_concurrent_requests_start_one_container(parts: ServerParts) -> None:
    invoke = deploy(parts, MaxConcurrency=20)
    wait_for_stop(parts)
    with ThreadPoolExecutor(20) as pool:
        assert {response.data for response in pool.map(lambda _: invoke(), range(20))} == {b"x"}
    assert len(parts.runtime.started_hosts) == 2


@pytest.mark.usefixtures("model")
def test_stops_and_starts_lose_no_request(parts: ServerParts) -> None:
    set_idle_timeout(parts, 0.001)
    invoke = deploy(parts, MaxConcurrency=20)

    def invoke_slowly(_: int) -> bytes:
        time.sleep(0.003)
        return bytes(invoke().data)

    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(invoke_slowly, range(100))) == {b"x"}
    assert len(parts.runtime.started_hosts) > 2


def test_requests_beyond_the_concurrency_are_throttled(parts: ServerParts, model: ImageBehaviour) -> None:
    gate = Gate(model)
    invoke = deploy(parts)
    with ThreadPoolExecutor() as pool:
        responses = [pool.submit(invoke) for _ in range(2)]
        wait_until(lambda: len(model.requests) == 2)
        error = invoke.read_error()
        assert (error.code, error.status) == ("ThrottlingException", 429)
        assert "the serverless variant main processes at most 2 requests at once" in error.message
        gate.is_open.set()
        assert [response.result().data for response in responses] == [b"x"] * 2
    assert invoke().data == b"x"


def test_ended_stream_no_longer_counts_as_a_request(parts: ServerParts, model: ImageBehaviour) -> None:
    model.invoke = lambda _: Reply(chunks=[b"one", b"two"])
    invoke = deploy(parts, MaxConcurrency=1)
    for _ in range(3):
        assert b"two" in wait_until(lambda: _read_stream(invoke))


def _read_stream(invoke: Invoker) -> bytes:
    try:
        return bytes(invoke(path="invocations-response-stream").data)
    except ServiceError:  # the server may not have noticed the end of the last stream yet
        return b""


def test_container_that_does_not_start_fails_the_endpoint(parts: ServerParts, model: ImageBehaviour) -> None:
    model.exit_at_start = Exit(3)
    make_config(parts)
    parts.start_endpoint()
    description = parts.wait_for_endpoint()
    assert description["EndpointStatus"] == "Failed"
    assert "did not pass the ping health check" in description["FailureReason"]
    assert parts.runtime.hosts == {}


@pytest.mark.usefixtures("short_idle_timeout")
def test_failed_start_fails_its_requests_and_the_next_request_tries_again(
    parts: ServerParts, model: ImageBehaviour
) -> None:
    invoke = deploy(parts)
    wait_for_stop(parts)
    model.exit_at_start = Exit(3)
    message = invoke.read_model_error()["Message"]
    assert "the container could not be started: The container ended before GET /ping answered 200" in message
    model.exit_at_start = None
    assert invoke().data == b"x"


@pytest.mark.usefixtures("short_idle_timeout")
def test_slow_start_is_not_ready_in_time(
    parts: ServerParts, model: ImageBehaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke = deploy(parts)
    wait_for_stop(parts)
    model.ping = 503
    monkeypatch.setattr(sagemaker_runtime, "RESPONSE_TIMEOUT", 0.1)
    error = invoke.read_error()
    assert (error.code, error.status) == ("ModelNotReadyException", 429)
    monkeypatch.setattr(sagemaker_runtime, "RESPONSE_TIMEOUT", 20.0)
    model.ping = 200
    assert invoke().data == b"x"
    assert len(parts.runtime.started_hosts) == 2


@pytest.mark.usefixtures("model")
def test_memory_size_limits_the_container(parts: ServerParts) -> None:
    deploy(parts)
    (host,) = parts.running_hosts
    assert host.plan.limits is not None
    assert host.plan.limits.memory_bytes == 2 << 30
    assert host.plan.has_gpus is False


@pytest.mark.usefixtures("model", "short_idle_timeout")
def test_provisioned_concurrency_keeps_the_container(parts: ServerParts) -> None:
    deploy(parts, ProvisionedConcurrency=1)
    time.sleep(0.3)
    assert len(parts.running_hosts) == 1
    assert len(parts.runtime.started_hosts) == 1


@pytest.mark.usefixtures("short_idle_timeout")
def test_update_changes_concurrency(parts: ServerParts, model: ImageBehaviour) -> None:
    invoke = deploy(parts)
    wait_for_stop(parts)
    assert read_metric(parts, "ModelSetupTime") == {}  # the first start of the container is not recorded
    update_weights(parts, main={"ServerlessUpdateConfig": {"MaxConcurrency": 1, "ProvisionedConcurrency": 1}})
    (variant,) = parts.wait_for_endpoint()["ProductionVariants"]
    assert variant["CurrentServerlessConfig"] == {**SERVERLESS_CONFIG, "MaxConcurrency": 1, "ProvisionedConcurrency": 1}
    wait_until(lambda: parts.running_hosts)
    wait_until(lambda: read_metric(parts, "ModelSetupTime").keys() == {"main"})
    gate = Gate(model)
    with ThreadPoolExecutor() as pool:
        response = pool.submit(invoke)
        wait_until(lambda: model.requests)
        assert invoke.read_error().code == "ThrottlingException"
        gate.is_open.set()
        assert response.result().data == b"x"


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"DesiredInstanceCount": 2}, "Variant main is serverless: use ServerlessUpdateConfig"),
        ({"ServerlessUpdateConfig": {"ProvisionedConcurrency": 3}}, "3 must not exceed MaxConcurrency 2"),
    ],
)
def test_invalid_update_is_refused(parts: ServerParts, changes: dict[str, Any], reason: str) -> None:
    deploy(parts)
    with pytest.raises(ValidationError, match=reason):
        update_weights(parts, main=changes)
    assert parts.describe_endpoint()["EndpointStatus"] == "InService"


@pytest.mark.usefixtures("model")
def test_variant_with_instances_refuses_serverless_updates(parts: ServerParts) -> None:
    parts.deploy()
    with pytest.raises(ValidationError, match="Variant main is not serverless: use DesiredInstanceCount"):
        update_weights(parts, main={"ServerlessUpdateConfig": {"MaxConcurrency": 1}})
    make_config(parts, "d")
    with pytest.raises(ValidationError, match="with instances cannot become serverless"):
        parts.update_endpoint("d")


@pytest.mark.usefixtures("model")
def test_endpoint_describes_serverless_variant(parts: ServerParts) -> None:
    deploy(parts)
    (variant,) = parts.describe_endpoint()["ProductionVariants"]
    assert variant["CurrentServerlessConfig"] == variant["DesiredServerlessConfig"] == SERVERLESS_CONFIG
    assert variant["CurrentInstanceCount"] == 0


@pytest.mark.usefixtures("short_idle_timeout")
def test_update_during_a_start_loses_no_request(parts: ServerParts, model: ImageBehaviour) -> None:
    invoke = deploy(parts)
    wait_for_stop(parts)
    model.ping = 503
    make_config(parts, "d")
    with ThreadPoolExecutor() as pool:
        response = pool.submit(invoke)
        wait_until(lambda: parts.running_hosts)
        parts.update_endpoint("d")
        wait_until(lambda: len(parts.runtime.hosts) == 2)
        model.ping = 200
        assert response.result(20).data == b"x"
    assert parts.wait_for_endpoint()["EndpointConfigName"] == "d"


@pytest.mark.usefixtures("short_idle_timeout")
@pytest.mark.parametrize("is_starting", [False, True])
def test_deleted_endpoint_leaves_no_container(parts: ServerParts, model: ImageBehaviour, *, is_starting: bool) -> None:
    invoke = deploy(parts)
    wait_for_stop(parts)
    with ThreadPoolExecutor() as pool:
        if is_starting:
            model.ping = 503
            request = pool.submit(invoke.read_error)
            wait_until(lambda: parts.running_hosts)
        parts.delete_endpoint()
        wait_until(lambda: parts.describe_endpoint()["EndpointStatus"] == "gone")
        assert not is_starting or request.result(20).status in (400, 503)
    assert parts.runtime.hosts == {}


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("is_idle", [False, True])
def test_restarted_server_serves(parts: ServerParts, *, is_idle: bool) -> None:
    if is_idle:
        set_idle_timeout(parts, 0.1)
    deploy(parts)
    if is_idle:
        wait_for_stop(parts)
    restarted_parts = parts.restart()
    try:
        assert wait_until(lambda: _read_response(restarted_parts)) == b"x"
        assert len(parts.runtime.started_hosts) == (2 if is_idle else 1)
    finally:
        restarted_parts.close()


@pytest.mark.usefixtures("model", "short_idle_timeout")
def test_restarted_server_starts_no_idle_container(parts: ServerParts) -> None:
    deploy(parts)
    wait_for_stop(parts)
    restarted_parts = parts.restart()
    try:
        wait_until(lambda: find_endpoint(restarted_parts).is_in_service.is_set())
        assert len(parts.runtime.started_hosts) == 1
        assert restarted_parts.describe_endpoint()["EndpointStatus"] == "InService"
        make_config(restarted_parts, "d")
        restarted_parts.update_endpoint("d")
        assert restarted_parts.wait_for_endpoint()["EndpointConfigName"] == "d"
        assert len(parts.runtime.started_hosts) == 2  # each deployment starts its container once, to check its health
    finally:
        restarted_parts.close()


@pytest.mark.usefixtures("model", "short_idle_timeout")
def test_restarted_server_starts_a_container_with_provisioned_concurrency(parts: ServerParts) -> None:
    deploy(parts, ProvisionedConcurrency=1)
    parts.registry.shut_down()
    restarted_parts = parts.restart()
    try:
        wait_until(lambda: len(parts.runtime.started_hosts) == 2)
        assert wait_until(lambda: _read_response(restarted_parts)) == b"x"
    finally:
        restarted_parts.close()


def find_endpoint(parts: ServerParts) -> Endpoint:
    endpoint = parts.registry.find("endpoint/e")
    assert isinstance(endpoint, Endpoint)
    return endpoint


def _read_response(parts: ServerParts) -> bytes:
    try:
        return bytes(Invoker(parts)().data)
    except ServiceError:
        return b""


def test_bodies_have_at_most_4_mb(parts: ServerParts, model: ImageBehaviour) -> None:
    invoke = deploy(parts)
    error = invoke.read_error(body=bytes(serverless.MAX_BODY_BYTES + 1))
    assert (error.code, model.requests) == ("ValidationError", [])
    assert invoke(bytes(serverless.MAX_BODY_BYTES)).status_code == 200
    model.invoke = lambda _: Reply(bytes(serverless.MAX_BODY_BYTES + 1))
    assert "more than 4194304 bytes" in invoke.read_model_error()["Message"]


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"MemorySizeInMB": 1500}, "MemorySizeInMB 1500 must be a multiple of 1024"),
        ({"ProvisionedConcurrency": 3}, "ProvisionedConcurrency 3 must not exceed MaxConcurrency 2"),
    ],
)
def test_invalid_config_is_refused(parts: ServerParts, config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        make_config(parts, **config)


@pytest.mark.usefixtures("model")
def test_unsupported_combinations_are_refused(parts: ServerParts) -> None:
    variant_without_model = {"VariantName": "main", "ServerlessConfig": SERVERLESS_CONFIG}
    variant = {**variant_without_model, "ModelName": "m"}
    instances_without_model = {"VariantName": "main", "InstanceType": "ml.m5.large"}
    asynchronous = {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://bucket/out"}}}
    parts.make_model("isolated", isolated=True)
    parts.make_model("s")
    refused_configs: list[tuple[list[dict[str, Any]], dict[str, Any], str]] = [
        ([{**variant, "InstanceType": "ml.m5.large"}], {}, "both ServerlessConfig and InstanceType"),
        ([{"VariantName": "main", "ModelName": "m"}], {}, "needs an InstanceType, or a ServerlessConfig"),
        ([variant, {**variant, "VariantName": "two"}], {}, "one variant, not 2"),
        (
            [instances_without_model, {**variant_without_model, "VariantName": "two"}],
            {},
            "serverless variant two needs a ModelName",
        ),
        ([variant, {**instances_without_model, "VariantName": "two"}], {}, "Variants without a ModelName: two"),
        ([{**variant, "ModelName": "isolated"}], {}, "does not support models with EnableNetworkIsolation"),
        ([variant], make_capture_config(), "DataCaptureConfig is not supported together with ServerlessConfig"),
        ([variant], make_shadow_config(), "ShadowProductionVariants is not supported together with ServerlessConfig"),
        ([variant], asynchronous, "AsyncInferenceConfig is not supported together with ServerlessConfig"),
    ]
    for variants, members, reason in refused_configs:
        with pytest.raises(ValidationError, match=reason):
            parts.make_config(config_members={"ProductionVariants": variants, **members})


@pytest.mark.usefixtures("model")
def test_update_under_load_loses_no_request(parts: ServerParts) -> None:
    invoke, stop = deploy(parts, MaxConcurrency=20), threading.Event()
    make_config(parts, "d", MaxConcurrency=20)

    def invoke_until_stopped() -> set[bytes]:
        bodies = set()
        while not stop.is_set():
            bodies.add(invoke().data)
        return bodies

    with ThreadPoolExecutor() as pool:
        clients = [pool.submit(invoke_until_stopped) for _ in range(4)]
        for config in ("d", "c", "d"):
            parts.update_endpoint(config)
            assert parts.wait_for_endpoint()["EndpointConfigName"] == config
        stop.set()
        assert [client.result() for client in clients] == [{b"x"}] * 4


@pytest.mark.usefixtures("model")
def test_ended_container_is_restarted(parts: ServerParts) -> None:
    deploy(parts)
    (host,) = parts.running_hosts
    host.end(Exit(1))
    assert wait_until(lambda: _read_response(parts)) == b"x"
    assert len(parts.runtime.started_hosts) == 2
