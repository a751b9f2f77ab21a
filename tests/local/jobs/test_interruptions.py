"""Tests of requests that interrupt spot training jobs."""

import math
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest

from microjobs_orchestrator.local.control import Address
from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.events import Interruption
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.resources.training.create import create
from microjobs_orchestrator.local.resources.training.interruptions import interrupt, request_interruption
from microjobs_orchestrator.local.resources.training.job import TrainingJob
from tests.local.jobs.conftest import ServerParts, wait_until
from tests.local.jobs.test_clock import TRAINING
from tests.local.jobs.waiting import WaitingRuntime

GOOD = {"job": "job", "notice": 5, "away": 1.5}
DEEP: Any = []
for _ in range(1000):
    DEEP = [DEEP]


@pytest.fixture
def runtime(parts: ServerParts) -> Iterator[WaitingRuntime]:
    """The runtime of these parts."""
    runtime = WaitingRuntime()
    parts.context = replace(parts.context, runtime=cast("Any", runtime))
    parts.registry = Registry(parts.context)
    yield runtime
    parts.registry.shut_down()


def start(parts: ServerParts, **members: Any) -> TrainingJob:
    job = TrainingJob(parts.context, create(parts.context, {**TRAINING, **members}))
    parts.registry.start(job)
    wait_until(lambda: "Training" in statuses(parts))
    return job


def statuses(parts: ServerParts) -> list[str]:
    record = parts.context.state.get("training-job", "job")
    assert record is not None
    return [item["Status"] for item in record.description["SecondaryStatusTransitions"]]


@pytest.mark.parametrize(
    "content",
    [
        *(None, [], "job", 5, {}, DEEP),
        *({**GOOD, "job": name} for name in (5, None, ["job"])),
        *({**GOOD, member: value} for member in ("notice", "away") for value in ("soon", None, -1, math.nan, math.inf)),
    ],
)
def test_malformed_interruption_raises(parts: ServerParts, content: Any) -> None:
    with pytest.raises(ValidationError, match="must be a JSON object with"):
        interrupt(parts.registry, content)


def test_interruption_replaces_the_hosts(parts: ServerParts, runtime: WaitingRuntime) -> None:
    start(parts)
    (host,) = runtime.hosts.values()
    interrupt(parts.registry, {**GOOD, "away": 0})
    wait_until(lambda: statuses(parts).count("Training") == 2)
    assert host.graces == [5.0]
    assert statuses(parts)[3:5] == ["Interrupted", "Starting"]
    (other,) = runtime.hosts.values()
    other.end()
    wait_until(lambda: statuses(parts)[-1] == "Completed")


def test_job_without_hosts_is_not_interrupted(parts: ServerParts, runtime: WaitingRuntime) -> None:
    start(parts)
    interrupt(parts.registry, {**GOOD, "away": 60})
    wait_until(lambda: statuses(parts)[-1] == "Interrupted" and not runtime.hosts)
    for name in ("job", "missing"):
        with pytest.raises(ValidationError, match=f"Training job '{name}' has no spot hosts now"):
            interrupt(parts.registry, {**GOOD, "job": name})


def test_on_demand_job_is_not_interrupted(parts: ServerParts, runtime: WaitingRuntime) -> None:
    start(parts, EnableManagedSpotTraining=False, StoppingCondition={})
    with pytest.raises(ValidationError, match="has no spot hosts now"):
        interrupt(parts.registry, GOOD)
    assert [host.graces for host in runtime.hosts.values()] == [[]]


def test_request_to_an_ended_server_returns_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    address = Address(url, "us-east-1", "key", "secret", "bucket", "role", "process", "reason", 1)
    assert request_interruption(address, "job", Interruption()).startswith("Could not connect to the endpoint URL")
