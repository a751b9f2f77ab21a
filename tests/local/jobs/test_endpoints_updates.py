"""Updates of endpoints: replaced and kept containers, retained properties, and requests during an update."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.runtimes.base import Exit
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import ImageBehaviour, ReceivedRequest, Reply
from tests.local.jobs.test_endpoints_invocations import Invoker
from tests.polling import wait_until


def read_variants(description: dict[str, Any]) -> dict[str, tuple[float, int]]:
    """Return the desired weight and the desired number of instances of each variant, by name."""
    return {
        item["VariantName"]: (item["DesiredWeight"], item["DesiredInstanceCount"])
        for item in description["ProductionVariants"]
    }


def update_weights(parts: ServerParts, **changes: dict[str, Any]) -> None:
    items = [{"VariantName": name, **members} for name, members in changes.items()]
    parts.endpoints.update_weights({"EndpointName": "e", "DesiredWeightsAndCapacities": items})


@pytest.mark.usefixtures("model")
def test_update_replaces_containers(parts: ServerParts) -> None:
    parts.deploy()
    (old_host,) = parts.running_hosts
    parts.make_config("d", second={})
    parts.update_endpoint("d")
    description = parts.wait_for_endpoint()
    assert (description["EndpointStatus"], description["EndpointConfigName"]) == ("InService", "d")
    assert [variant["VariantName"] for variant in description["ProductionVariants"]] == ["second"]
    wait_until(lambda: len(parts.runtime.hosts) == 1)
    assert old_host.graces == [30]


@pytest.mark.usefixtures("model")
def test_failed_update_keeps_old_containers(parts: ServerParts) -> None:
    parts.deploy()
    (old_host,) = parts.running_hosts
    parts.make_model("bad", "bad")
    parts.runtime.behaviours["bad"] = ImageBehaviour(exit_at_start=Exit(1))
    parts.make_config("d", main={"ModelName": "bad"})
    parts.update_endpoint("d")
    description = parts.wait_for_endpoint()
    assert (description["EndpointStatus"], description["EndpointConfigName"]) == ("InService", "c")
    assert "did not pass the ping health check" in description["FailureReason"]
    assert parts.running_hosts == [old_host]


@pytest.mark.usefixtures("model")
def test_update_is_refused_during_an_update(parts: ServerParts) -> None:
    parts.deploy()
    parts.make_model("slow", "slow")
    parts.runtime.behaviours["slow"] = ImageBehaviour(ping=503)
    parts.make_config("d", main={"ModelName": "slow"})
    parts.update_endpoint("d")
    with pytest.raises(ValidationError, match="which is Updating"):
        parts.update_endpoint("d")


def test_replaced_container_finishes_its_requests(parts: ServerParts, model: ImageBehaviour) -> None:
    parts.deploy()
    (old_host,) = parts.running_hosts
    released = threading.Event()

    def respond_when_released(request: ReceivedRequest) -> Reply:
        released.wait(10)
        return Reply(request.host.encode())

    model.invoke = respond_when_released
    parts.make_config("d", second={})
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(Invoker(parts))
        wait_until(lambda: model.requests)
        parts.update_endpoint("d")
        assert parts.wait_for_endpoint()["EndpointConfigName"] == "d"
        time.sleep(0.2)
        assert not old_host.has_ended
        released.set()
        assert answer.result(10).data == old_host.name.encode()
    wait_until(lambda: old_host.has_ended)


@pytest.mark.usefixtures("model")
def test_weights_change_without_new_containers(parts: ServerParts) -> None:
    parts.deploy(one={}, two={})
    hosts = parts.running_hosts
    update_weights(parts, one={"DesiredWeight": 0.0})
    assert read_variants(parts.wait_for_endpoint()) == {"one": (0.0, 1), "two": (1.0, 1)}
    assert parts.running_hosts == hosts
    assert len(parts.runtime.started_hosts) == 2
    answers = {Invoker(parts)().headers["x-Amzn-Invoked-Production-Variant"] for _ in range(20)}
    assert answers == {"two"}


@pytest.mark.usefixtures("model")
def test_weights_of_an_unknown_variant_are_refused(parts: ServerParts) -> None:
    parts.deploy()
    with pytest.raises(ValidationError, match=r"Could not find variant\(s\) other; the endpoint has: main"):
        update_weights(parts, other={"DesiredWeight": 1.0})
    assert parts.describe_endpoint()["EndpointStatus"] == "InService"


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, (5.0, 4)),
        ({"RetainAllVariantProperties": True}, (2.0, 3)),
        (
            {
                "RetainAllVariantProperties": True,
                "ExcludeRetainedVariantProperties": [{"VariantPropertyType": "DesiredWeight"}],
            },
            (5.0, 3),
        ),
    ],
)
@pytest.mark.usefixtures("model")
def test_update_retains_requested_variant_properties(
    parts: ServerParts, members: dict[str, Any], expected: tuple[float, int]
) -> None:
    parts.deploy(main={})
    update_weights(parts, main={"DesiredWeight": 2.0, "DesiredInstanceCount": 3})
    parts.wait_for_endpoint()
    parts.make_config("d", main={"InitialVariantWeight": 5.0, "InitialInstanceCount": 4}, new={})
    parts.update_endpoint("d", **members)
    assert read_variants(parts.wait_for_endpoint()) == {"main": expected, "new": (1.0, 1)}


def test_deletion_does_not_wait_for_requests_to_replaced_containers(parts: ServerParts, model: ImageBehaviour) -> None:
    parts.deploy()
    released = threading.Event()
    model.invoke = lambda _: Reply(str(released.wait(20)).encode())
    parts.make_config("d", second={})
    with ThreadPoolExecutor() as pool:
        pool.submit(Invoker(parts))
        wait_until(lambda: model.requests)
        parts.update_endpoint("d")
        parts.wait_for_endpoint()
        parts.delete_endpoint()
        wait_until(lambda: parts.context.state.get("endpoint", "e") is None)
        released.set()
    assert parts.runtime.hosts == {}
