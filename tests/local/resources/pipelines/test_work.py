"""The work of executions: it is proportional to the number of steps, and quadratic in the number of items of a loop.

Waiting costs nothing.
"""

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
from tests.local.jobs.fakes import FakeRuntime
from tests.local.resources.pipelines.in_process import ROLE, Server
from tests.polling import wait_until

STEP_COUNT = 100
PARALLEL_STEPS = 10
MAX_CALLS_PER_STEP = 10 + 2 * PARALLEL_STEPS
"""Maximum number of calls per step. After each end of a job, the execution reads the current status of all running
jobs."""

ITEM_COUNT = 50
MAX_READS_PER_PAIR = 20
"""Maximum number of reads of statuses per pair of items. Each start of an item reads the statuses of the other
items."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The number of calls of each method of the state in the threads of executions, by the method's name."""
    counts: Counter[str] = Counter()

    def count_calls(name: str) -> Callable[..., Any]:
        method = getattr(State, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread().name.startswith("pipeline-execution/"):
                counts[name] += 1
            return method(*arguments, **options)

        return call

    for name in ("get", "find", "add", "update", "set_owner"):
        monkeypatch.setattr(State, name, count_calls(name))
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
    parallelism = {"ParallelismConfiguration": {"MaxParallelExecutionSteps": PARALLEL_STEPS}}
    arn = server.start({"Version": "2020-12-01", "Steps": make_steps(STEP_COUNT)}, **parallelism)
    assert server.wait_for_end(arn)["PipelineExecutionStatus"] == "Succeeded"
    assert server.count_resources("processing-job") == STEP_COUNT
    assert calls.total() < MAX_CALLS_PER_STEP * STEP_COUNT, calls
    server.parts.close()


def test_work_of_a_loop_with_low_concurrency_is_bounded(
    home: Home, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of reads is quadratic. It would be cubic if each start also compared the waiting items."""
    reads = 0
    read_status: Callable[[StepRun], StepStatus] = StepRun.__dict__["status"].fget

    def count_read(run: StepRun) -> StepStatus:
        nonlocal reads
        reads += 1
        return read_status(run)

    monkeypatch.setattr(StepRun, "status", property(count_read))
    arguments = {"IterableItems": list(range(ITEM_COUNT)), "MaxConcurrency": 1, "ForEachBody": make_steps(1)}
    server = Server(home, runtime)
    arn = server.start({"Version": "2020-12-01", "Steps": [{"Name": "L", "Type": "ForEach", "Arguments": arguments}]})
    assert server.wait_for_end(arn)["PipelineExecutionStatus"] == "Succeeded"
    assert reads < MAX_READS_PER_PAIR * ITEM_COUNT**2, reads
    server.parts.close()


def test_waiting_execution_does_not_poll(home: Home, runtime: FakeRuntime, calls: Counter[str]) -> None:
    runtime.behaviours["model"].exit_at_start = None
    server = Server(home, runtime)
    arn = server.start({"Version": "2020-12-01", "Steps": make_steps(2)})
    wait_until(lambda: len(runtime.started_hosts) == 2 and len(server.list_steps(arn)) == 2)
    time.sleep(0.1)
    call_count = calls.total()
    time.sleep(0.5)
    assert calls.total() == call_count
    for host in runtime.started_hosts:
        host.end(Exit(0))
    assert server.wait_for_end(arn)["PipelineExecutionStatus"] == "Succeeded"
    server.parts.close()
