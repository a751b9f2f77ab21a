"""Variants with several instances: their containers, the choice of a container for each request, and scaling."""

import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.resources.endpoints import container_replica, routing
from microjobs_orchestrator.local.runtimes.base import Exit
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import FakeHost, ImageBehaviour, ReceivedRequest, Reply
from tests.local.jobs.test_asynchronous import OUTPUT, invoke_async, wait_for_object
from tests.local.jobs.test_endpoints_invocations import Invoker
from tests.local.jobs.test_endpoints_updates import update_weights
from tests.polling import wait_until

LOG_GROUP = "/aws/sagemaker/Endpoints/e"
TWO_INSTANCES: Mapping[str, Any] = {"InitialInstanceCount": 2}


def read_counts(parts: ServerParts) -> tuple[int, int]:
    """Return the current and the desired number of instances of the only variant."""
    (variant,) = parts.describe_endpoint()["ProductionVariants"]
    return variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]


def scale(parts: ServerParts, count: int) -> list[FakeHost]:
    """Set the desired number of instances; return the running hosts after the update."""
    update_weights(parts, main={"DesiredInstanceCount": count})
    parts.wait_for_endpoint()
    return parts.running_hosts


def return_host(request: ReceivedRequest) -> Reply:
    return Reply(request.host.encode())


def test_variant_has_one_container_per_instance(parts: ServerParts, model: ImageBehaviour) -> None:
    parts.deploy(main={"InitialInstanceCount": 3})
    hosts = {host.name for host in parts.running_hosts}
    assert (len(hosts), read_counts(parts)) == (3, (3, 3))
    model.invoke = return_host
    answers = Counter(Invoker(parts)().data.decode() for _ in range(30))
    assert answers == dict.fromkeys(hosts, 10)
    assert {name.rpartition("/")[2] for name in parts.read_log(LOG_GROUP)} == hosts


def test_random_routing_chooses_a_random_instance(
    parts: ServerParts, model: ImageBehaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.deploy(main={**TWO_INSTANCES, "RoutingConfig": {"RoutingStrategy": "RANDOM"}})
    monkeypatch.setattr(routing, "_random", SimpleNamespace(choice=lambda replicas: replicas[-1]))
    model.invoke = return_host
    assert len({Invoker(parts)().data for _ in range(5)}) == 1


def test_scaling_in_keeps_the_first_instance_and_completes_requests(parts: ServerParts, model: ImageBehaviour) -> None:
    parts.deploy()
    (first_host,) = parts.running_hosts
    new_host = next(host for host in scale(parts, 2) if host is not first_host)
    release, begun = threading.Event(), threading.Event()

    def block(request: ReceivedRequest) -> Reply:
        if request.host == new_host.name:
            begun.set()
            release.wait(10)
        return return_host(request)

    model.invoke = block
    with ThreadPoolExecutor() as pool:
        invoker = Invoker(parts)
        answers = [pool.submit(invoker) for _ in range(2)]
        assert begun.wait(10)
        update_weights(parts, main={"DesiredInstanceCount": 1})
        wait_until(lambda: read_counts(parts), lambda counts: counts == (1, 1))
        assert invoker().data == first_host.name.encode()
        assert not new_host.has_ended
        release.set()
        assert {answer.result(10).data.decode() for answer in answers} == {first_host.name, new_host.name}
    wait_until(lambda: parts.running_hosts == [first_host])


def test_other_instances_serve_while_one_is_replaced(
    parts: ServerParts, model: ImageBehaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_replica, "FIRST_RESTART_DELAY_SECONDS", 0.5)
    parts.deploy(main=TWO_INSTANCES)
    running_host, ended_host = parts.running_hosts
    begun, release = threading.Event(), threading.Event()

    def block_slow(request: ReceivedRequest) -> Reply:
        if request.body == b"slow":
            begun.set()
            release.wait(10)
        return return_host(request)

    model.invoke = block_slow
    ended_host.end(Exit(1))
    with ThreadPoolExecutor() as pool:
        pool.submit(Invoker(parts), b"slow")  # this request makes the ended instance the one with the fewest requests
        assert begun.wait(10)
        assert {Invoker(parts)().data.decode() for _ in range(20)} == {running_host.name}
        release.set()
    wait_until(lambda: len(parts.running_hosts) == 2)
    wait_until(lambda: Invoker(parts)().data == ended_host.name.encode())
    assert not running_host.has_ended


def test_setting_limits_the_instances(parts: ServerParts, model: ImageBehaviour) -> None:  # noqa: ARG001
    parts.context = replace(parts.context, settings=replace(parts.context.settings, max_instances=2))
    parts.deploy(main={"InitialInstanceCount": 1_000_000})
    assert len(parts.running_hosts) == 2
    assert read_counts(parts) == (2, 1_000_000)
    lines = "".join(line for stream in parts.read_log(LOG_GROUP).values() for line in stream)
    assert "2 of 1000000 instances run: the setting max_instances is 2" in lines


def test_failed_scaling_keeps_the_earlier_count(parts: ServerParts, model: ImageBehaviour) -> None:
    parts.deploy()
    model.exit_at_start = Exit(1)
    (host,) = scale(parts, 3)
    assert not host.has_ended
    assert read_counts(parts) == (1, 1)
    assert "did not pass the ping health check" in parts.describe_endpoint()["FailureReason"]


def test_restarted_server_keeps_all_instances(parts: ServerParts, model: ImageBehaviour) -> None:  # noqa: ARG001
    parts.deploy(main=TWO_INSTANCES)
    hosts = scale(parts, 3)
    restarted_parts = parts.restart()
    assert Invoker(restarted_parts)().status_code == 200
    assert restarted_parts.running_hosts == hosts
    assert read_counts(restarted_parts) == (3, 3)
    restarted_parts.close()


def test_instances_of_a_shadow_share_the_copied_requests(parts: ServerParts, model: ImageBehaviour) -> None:
    parts.runtime.behaviours["shadow"] = ImageBehaviour()
    parts.make_model("s", "shadow")
    variant = {"VariantName": "copy", "ModelName": "s", "InstanceType": "ml.m5.large", **TWO_INSTANCES}
    parts.make_config(config_members={"ShadowProductionVariants": [variant]})
    parts.start_endpoint()
    parts.wait_for_endpoint()
    for _ in range(4):
        Invoker(parts)()
    requests = parts.runtime.behaviours["shadow"].requests
    wait_until(lambda: len(requests) == len(model.requests) == 4)
    assert len({request.host for request in requests}) == 2


def test_asynchronous_requests_use_all_instances_and_wait_for_the_first_one(
    parts: ServerParts, model: ImageBehaviour
) -> None:
    parts.make_config(
        "c", asynchronous={"OutputConfig": OUTPUT, "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 1}}
    )
    parts.start_endpoint()
    parts.wait_for_endpoint()
    barrier = threading.Barrier(2)  # both requests are processed at the same time

    def wait_for_both(request: ReceivedRequest) -> Reply:
        barrier.wait(10)
        return return_host(request)

    model.invoke = wait_for_both
    scale(parts, 0)
    wait_until(lambda: not parts.running_hosts)
    outputs = [invoke_async(Invoker(parts), b"x").headers["X-Amzn-SageMaker-OutputLocation"] for _ in range(2)]
    hosts = {host.name for host in scale(parts, 2)}
    assert {wait_for_object(parts, output)[1].decode() for output in outputs} == hosts


@pytest.mark.usefixtures("model")
def test_variant_without_instances_refuses_requests(parts: ServerParts) -> None:
    parts.deploy()
    scale(parts, 0)
    with pytest.raises(ServiceError, match="Endpoint e has no production variant with instances"):
        Invoker(parts)()
