"""Executions whose server is killed: a later server continues them, and starts nothing twice."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.lifecycle.events import Change
from microjobs_orchestrator.local.resources.pipelines.attempts import Attempts
from microjobs_orchestrator.local.runtimes.base import Exit
from microjobs_orchestrator.local.state import Query, State
from tests.local.jobs.fakes import FakeRuntime
from tests.local.resources.pipelines.in_process import ROLE, Server
from tests.polling import wait_until

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
"""`kill_after` ends threads with SystemExit."""

WRITES_UNTIL_JOB_IS_ADDED = 3
"""The number of writes after which the state has a job that was not started."""
WRITE_METHODS = ("add", "update", "set_owner")
"""The methods that write to the state. Tests end threads after these writes."""
CLUSTER = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
PROCESSING_ARGUMENTS = {
    "AppSpecification": {"ImageUri": "model"},
    "ProcessingResources": {"ClusterConfig": CLUSTER},
    "RoleArn": ROLE,
}
STEPS = [
    {"Name": "Process", "Type": "Processing", "Arguments": PROCESSING_ARGUMENTS},
    {
        "Name": "Check",
        "Type": "Condition",
        "DependsOn": ["Process"],
        "Arguments": {
            "Conditions": [{"Type": "Equals", "LeftValue": {"Get": "Parameters.P"}, "RightValue": "x"}],
            "IfSteps": [
                {
                    "Name": "Create",
                    "Type": "Model",
                    "Arguments": {"PrimaryContainer": {"Image": "model"}, "ExecutionRoleArn": ROLE},
                }
            ],
            "ElseSteps": [],
        },
    },
]
DEFINITION = {
    "Version": "2020-12-01",
    "Parameters": [{"Name": "P", "Type": "String", "DefaultValue": "x"}],
    "Steps": STEPS,
}


@contextmanager
def kill_after(monkeypatch: pytest.MonkeyPatch, writes: int) -> Iterator[Callable[[], bool]]:
    """End the thread of the execution after `writes` writes to the state. Yield a function that returns whether the
    execution has made so many writes."""
    write_count = 0

    def count_writes(name: str) -> Callable[..., Any]:
        method = getattr(State, name)

        def write(state: State, *arguments: Any, **options: Any) -> Any:
            nonlocal write_count
            result = method(state, *arguments, **options)
            if threading.current_thread().name.startswith("pipeline-execution/"):
                write_count += 1
                if write_count == writes:
                    raise SystemExit  # SystemExit ends the thread without a message
            return result

        return write

    with monkeypatch.context() as patch:
        for name in WRITE_METHODS:
            patch.setattr(State, name, count_writes(name))
        yield lambda: write_count >= writes


@pytest.mark.parametrize("writes", range(1, 14))
def test_execution_continues_after_each_write(
    home: Home, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    first = Server(home, runtime)
    with kill_after(monkeypatch, writes) as was_killed:
        arn = first.start(DEFINITION)
        wait_until(first.is_idle)
        assert was_killed(), "the execution makes fewer writes: reduce the range"
    second = Server(home, runtime)
    second.recover()
    description = second.wait_for_end(arn)
    if (
        writes == WRITES_UNTIL_JOB_IS_ADDED
    ):  # the job has no host: it fails like any job whose server was killed at this point
        assert "Process: InternalServerError: the local server ended while the job ran" in description["FailureReason"]
        description = second.retry(arn)
    assert description["PipelineExecutionStatus"] == "Succeeded", second.list_steps(arn)
    assert second.list_steps(arn) == [(name, "Succeeded") for name in ("Process", "Check", "Create")]
    assert (second.count_resources("processing-job"), second.count_resources("model")) == (
        2 if writes == WRITES_UNTIL_JOB_IS_ADDED else 1,
        1,
    )
    second.parts.close()
    first.parts.close()


WRITES_UNTIL_JOB_IS_STARTED = 5
"""The number of writes after which the state has a step with a running job."""


def test_execution_continues_with_a_job_that_ran_without_a_server(
    home: Home, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The container keeps running while no server runs, and its end reaches the execution of the second server."""
    runtime.behaviours["model"].exit_at_start = None
    first = Server(home, runtime)
    with kill_after(monkeypatch, WRITES_UNTIL_JOB_IS_STARTED) as was_killed:
        arn = first.start(DEFINITION)
        wait_until(lambda: was_killed() and runtime.started_hosts)
    second = Server(home, runtime)
    second.recover()
    wait_until(lambda: second.list_steps(arn) == [("Process", "Executing")])
    runtime.started_hosts[0].end(Exit(0))
    assert second.wait_for_end(arn)["PipelineExecutionStatus"] == "Succeeded"
    second.parts.close()


def test_error_of_the_server_ends_the_steps_of_the_execution(
    home: Home, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.behaviours["model"].exit_at_start = None
    server = Server(home, runtime)
    arn = server.start(DEFINITION)
    wait_until(lambda: server.list_steps(arn) == [("Process", "Executing")] and runtime.started_hosts)

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Attempts, "update", fail)
    execution = server.parts.registry.find(f"pipeline-execution/{arn.rpartition('/')[2]}")
    assert execution is not None
    execution.events.send(Change.OWNED_RESOURCE_CHANGED)
    description = server.wait_for_end(arn)
    assert description["PipelineExecutionStatus"] == "Failed"
    assert "RuntimeError: a bug" in description["FailureReason"]
    assert server.list_steps(arn) == [("Process", "Failed")]
    wait_until(server.is_idle)
    (job,) = server.state.find(Query("processing-job"))
    assert job.status == "Stopped"
    server.parts.close()


@pytest.mark.parametrize("writes", range(1, WRITES_UNTIL_JOB_IS_STARTED + 1))
def test_stop_that_a_killed_server_accepted_is_performed(
    home: Home, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    first = Server(home, runtime)
    with kill_after(monkeypatch, writes):
        arn = first.start(DEFINITION)
        wait_until(first.is_idle)
    name, changes = arn.rpartition("/")[2], {"PipelineExecutionStatus": "Stopping"}
    first.state.update("pipeline-execution", name, changes, "Stopping")
    second = Server(home, runtime)
    second.recover()
    assert second.wait_for_end(arn)["PipelineExecutionStatus"] == "Stopped"
    ((_, status),) = second.list_steps(arn)
    assert status == {1: "Stopped", 2: "Stopped", WRITES_UNTIL_JOB_IS_ADDED: "Failed"}.get(writes, "Succeeded")
    assert second.count_resources("processing-job") == (0 if writes < WRITES_UNTIL_JOB_IS_ADDED else 1)
    second.parts.close()


def test_shutdown_fails_the_execution_with_a_reason(home: Home, runtime: FakeRuntime) -> None:
    runtime.behaviours["model"].exit_at_start = None
    first = Server(home, runtime)
    arn = first.start(DEFINITION)
    wait_until(lambda: runtime.started_hosts and first.list_steps(arn) == [("Process", "Executing")])
    first.parts.registry.shut_down()
    description = first.describe(arn)
    assert description["PipelineExecutionStatus"] == "Failed"
    assert description["FailureReason"] == "InternalServerError: the local server was shut down while the execution ran"
    assert first.list_steps(arn) == [("Process", "Failed")]
    first.parts.close()


def test_execution_ends_if_a_killed_server_was_stopping_its_function(
    home: Home, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function belonged to the killed server: nothing will ever report its end."""
    first = Server(home, runtime)
    call = {"Name": "Call", "Type": "Lambda", "FunctionArn": "absent", "OutputParameters": []}
    with kill_after(monkeypatch, 1):
        arn = first.start({"Version": "2020-12-01", "Steps": [call]})
        wait_until(first.is_idle)
    name = arn.rpartition("/")[2]
    first.state.update("pipeline-execution", name, {"PipelineExecutionStatus": "Stopping"}, "Stopping")
    first.state.update("pipeline-execution-step", f"{name}/Call", {"StepStatus": "Stopping"}, "Stopping")
    second = Server(home, runtime)
    second.recover()
    assert second.wait_for_end(arn)["PipelineExecutionStatus"] == "Stopped"
    assert second.list_steps(arn) == [("Call", "Stopped")]
    second.parts.close()
    first.parts.close()
