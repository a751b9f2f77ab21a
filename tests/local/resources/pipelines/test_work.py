"""The work of executions with many steps: it is proportional to the number of steps, and waiting costs nothing."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.resources.pipelines.step_run import StepRun, StepStatus
from microjobs_orchestrator.local.runtimes.base import Exit
from microjobs_orchestrator.local.state import State
from tests.local.jobs.conftest import wait_until
from tests.local.jobs.fakes import FakeRuntime
from tests.local.resources.pipelines.in_process import ROLE, Server

STEPS = 100
PARALLEL = 10
MAX_CALLS_PER_STEP = 10 + 2 * PARALLEL
"""Each end of a job makes the execution read the present status of all jobs that run."""

ITEMS = 50
MAX_READS_PER_PAIR = 20
"""Reads of statuses per item and item: each start of an item reads the statuses of the other ones."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The number of calls of the state by the threads of executions, by method."""
    counts: Counter[str] = Counter()

    def counted(name: str) -> Callable[..., Any]:
        method = getattr(State, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread().name.startswith("pipeline-execution/"):
                counts[name] += 1
            return method(*arguments, **options)

        return call

    for name in ("get", "find", "add", "update", "set_owner"):
        monkeypatch.setattr(State, name, counted(name))
    return counts


def make_steps(count: int) -> list[dict[str, Any]]:
    cluster = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
    arguments = {
        "AppSpecification": {"ImageUri": "model"},
        "ProcessingResources": {"ClusterConfig": cluster},
        "RoleArn": ROLE,
    }
    return [{"Name": f"S{number}", "Type": "Processing", "Arguments": arguments} for number in range(count)]


def test_work_is_proportional_to_the_number_of_steps(home: Home, runtime: FakeRuntime, calls: Counter[str]) -> None:
    server = Server(home, runtime)
    parallelism = {"ParallelismConfiguration": {"MaxParallelExecutionSteps": PARALLEL}}
    arn = server.start({"Version": "2020-12-01", "Steps": make_steps(STEPS)}, **parallelism)
    assert server.wait_for_end(arn)["PipelineExecutionStatus"] == "Succeeded"
    assert server.count("processing-job") == STEPS
    assert calls.total() < MAX_CALLS_PER_STEP * STEPS, calls
    server.parts.close()


def test_work_of_a_loop_with_little_room_is_bounded(
    home: Home, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one item runs, the others are not compared with each other."""
    reads = 0
    read: Callable[[StepRun], StepStatus] = StepRun.__dict__["status"].fget

    def count(run: StepRun) -> StepStatus:
        nonlocal reads
        reads += 1
        return read(run)

    monkeypatch.setattr(StepRun, "status", property(count))
    arguments = {"IterableItems": list(range(ITEMS)), "MaxConcurrency": 1, "ForEachBody": make_steps(1)}
    server = Server(home, runtime)
    arn = server.start({"Version": "2020-12-01", "Steps": [{"Name": "L", "Type": "ForEach", "Arguments": arguments}]})
    assert server.wait_for_end(arn)["PipelineExecutionStatus"] == "Succeeded"
    assert reads < MAX_READS_PER_PAIR * ITEMS**2, reads
    server.parts.close()


def test_waiting_execution_does_not_poll(home: Home, runtime: FakeRuntime, calls: Counter[str]) -> None:
    runtime.models["model"].exit_at_start = None
    server = Server(home, runtime)
    arn = server.start({"Version": "2020-12-01", "Steps": make_steps(2)})
    wait_until(lambda: len(runtime.started_hosts) == 2 and len(server.list_steps(arn)) == 2)
    time.sleep(0.1)
    before = calls.total()
    time.sleep(0.5)
    assert calls.total() == before
    for host in runtime.started_hosts:
        host.end(Exit(0))
    assert server.wait_for_end(arn)["PipelineExecutionStatus"] == "Succeeded"
    server.parts.close()
