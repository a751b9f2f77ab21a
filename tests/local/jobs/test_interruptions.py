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
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.test_clock import TRAINING_REQUEST
from tests.local.jobs.waiting import WaitingRuntime
from tests.polling import wait_until

VALID_REQUEST = {"job": "job", "notice": 5, "away": 1.5}
"""`notice` is the number of seconds between SIGTERM and SIGKILL. `away` is the number of seconds until new hosts start.
They become `notice_seconds` and `away_seconds` of the `Interruption`."""
DEEP_LIST: Any = []
for _ in range(1000):
    DEEP_LIST = [DEEP_LIST]


@pytest.fixture
def runtime(parts: ServerParts) -> Iterator[WaitingRuntime]:
    """A runtime whose hosts wait until a test ends them. It replaces the runtime of `parts`."""
    runtime = WaitingRuntime()
    parts.context = replace(parts.context, runtime=cast("Any", runtime))
    parts.registry = Registry(parts.context)
    yield runtime
    parts.registry.shut_down()


def start(parts: ServerParts, **members: Any) -> TrainingJob:
    job = TrainingJob(parts.context, create(parts.context, {**TRAINING_REQUEST, **members}))
    parts.registry.start(job)
    wait_until(lambda: "Training" in list_statuses(parts))
    return job


def list_statuses(parts: ServerParts) -> list[str]:
    record = parts.context.state.get("training-job", "job")
    assert record is not None
    return [item["Status"] for item in record.description["SecondaryStatusTransitions"]]


@pytest.mark.parametrize(
    "content",
    [
        *(None, [], "job", 5, {}, DEEP_LIST),
        *({**VALID_REQUEST, "job": name} for name in (5, None, ["job"])),
        *(
            {**VALID_REQUEST, member: value}
            for member in ("notice", "away")
            for value in ("soon", None, -1, math.nan, math.inf)
        ),
    ],
)
def test_malformed_interruption_raises(parts: ServerParts, content: Any) -> None:
    with pytest.raises(ValidationError, match="must be a JSON object with"):
        interrupt(parts.registry, content)


def test_interruption_replaces_the_hosts(parts: ServerParts, runtime: WaitingRuntime) -> None:
    start(parts)
    (host,) = runtime.hosts.values()
    interrupt(parts.registry, {**VALID_REQUEST, "away": 0})
    wait_until(lambda: list_statuses(parts).count("Training") == 2)
    assert host.graces == [5.0]
    assert list_statuses(parts)[3:5] == ["Interrupted", "Starting"]
    (new_host,) = runtime.hosts.values()
    new_host.end()
    wait_until(lambda: list_statuses(parts)[-1] == "Completed")


def test_job_without_hosts_and_unknown_job_are_not_interrupted(parts: ServerParts, runtime: WaitingRuntime) -> None:
    start(parts)
    interrupt(parts.registry, {**VALID_REQUEST, "away": 60})
    wait_until(lambda: list_statuses(parts)[-1] == "Interrupted" and not runtime.hosts)
    for name in ("job", "missing"):
        with pytest.raises(
            ValidationError, match=f"Training job '{name}' cannot be interrupted: it must be a managed spot job"
        ):
            interrupt(parts.registry, {**VALID_REQUEST, "job": name})


def test_on_demand_job_is_not_interrupted(parts: ServerParts, runtime: WaitingRuntime) -> None:
    start(parts, EnableManagedSpotTraining=False, StoppingCondition={})
    with pytest.raises(ValidationError, match="cannot be interrupted: it must be a managed spot job"):
        interrupt(parts.registry, VALID_REQUEST)
    assert [host.graces for host in runtime.hosts.values()] == [[]]


def test_request_to_an_ended_server_returns_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    address = Address(
        url,
        region="us-east-1",
        access_key_id="key",
        secret_access_key="secret",  # noqa: S106
        bucket="bucket",
        role_arn="role",
        runtime="process",
        why="a test",
        pid=1,
    )
    assert request_interruption(address, "job", Interruption()).startswith("Could not connect to the endpoint URL")
