"""Retry policies of steps, and retries of executions."""

from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.runtimes.base import Exit
from tests.local.jobs.fakes import FakeRuntime, ImageBehaviour
from tests.local.resources.pipelines.in_process import ROLE, Server
from tests.polling import wait_until

IMAGE = "image"
EXIT_WITH_EXTERNAL_CAUSE = Exit(137, "no memory", has_external_cause=True)
"""An end of a host whose cause is outside of the job."""


@pytest.fixture
def behaviour(runtime: FakeRuntime) -> ImageBehaviour:
    """The behaviour of the image of the processing jobs."""
    return runtime.behaviours.setdefault(IMAGE, ImageBehaviour())


def make_definition(**policy: Any) -> dict[str, Any]:
    arguments = {
        "AppSpecification": {"ImageUri": IMAGE},
        "ProcessingResources": {
            "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
        },
        "RoleArn": ROLE,
    }
    step = {"Name": "Step", "Type": "Processing", "Arguments": arguments}
    return {"Version": "2020-12-01", "Steps": [{**step, "RetryPolicies": [policy]} if policy else step]}


def count_attempts(server: Server, arn: str) -> int:
    request = {"PipelineExecutionArn": arn}
    (step,) = server.operations["ListPipelineExecutionSteps"](request)["PipelineExecutionSteps"]
    return int(step["AttemptCount"])


def test_step_is_retried_until_it_succeeds(home: Home, runtime: FakeRuntime, behaviour: ImageBehaviour) -> None:
    behaviour.exit_at_start = EXIT_WITH_EXTERNAL_CAUSE
    server = Server(home, runtime)
    types = ["Step.THROTTLING", "SageMaker.JOB_INTERNAL_ERROR"]
    arn = server.start(make_definition(ExceptionType=types, IntervalSeconds=0, BackoffRate=1.0, ExpireAfterMin=5))
    wait_until(lambda: server.count_resources("processing-job") >= 3)
    assert server.describe(arn)["PipelineExecutionStatus"] == "Executing"
    behaviour.exit_at_start = Exit(0)
    assert server.wait_for_end(arn)["PipelineExecutionStatus"] == "Succeeded"
    assert count_attempts(server, arn) == server.count_resources("processing-job") >= 3
    server.parts.close()


@pytest.mark.parametrize(
    ("policy", "host_exit", "attempt_count"),
    [
        ({"ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"], "MaxAttempts": 2}, EXIT_WITH_EXTERNAL_CAUSE, 3),
        ({"ExceptionType": ["SageMaker.CAPACITY_ERROR"], "MaxAttempts": 2}, EXIT_WITH_EXTERNAL_CAUSE, 1),
        ({"ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"], "MaxAttempts": 2}, Exit(1), 1),
        ({}, EXIT_WITH_EXTERNAL_CAUSE, 1),
    ],
)
def test_policy_limits_the_number_of_attempts(
    home: Home,
    runtime: FakeRuntime,
    behaviour: ImageBehaviour,
    policy: dict[str, Any],
    host_exit: Exit,
    attempt_count: int,
) -> None:
    """A policy retries failures of its types only, and MaxAttempts times at most."""
    behaviour.exit_at_start = host_exit
    server = Server(home, runtime)
    arn = server.start(make_definition(**policy, **({"IntervalSeconds": 0} if policy else {})))
    assert server.wait_for_end(arn)["PipelineExecutionStatus"] == "Failed"
    assert count_attempts(server, arn) == server.count_resources("processing-job") == attempt_count
    server.parts.close()


def test_step_that_waits_for_a_retry_survives_a_restart_and_can_be_stopped(
    home: Home, runtime: FakeRuntime, behaviour: ImageBehaviour
) -> None:
    behaviour.exit_at_start = EXIT_WITH_EXTERNAL_CAUSE
    first = Server(home, runtime)
    types = ["SageMaker.JOB_INTERNAL_ERROR"]
    arn = first.start(make_definition(ExceptionType=types, IntervalSeconds=1000, MaxAttempts=2))
    # The thread of the job must have ended, so that only the execution is interrupted.
    wait_until(
        lambda: (
            first.count_resources("processing-job") == 1 and "processing-job" not in str(first.parts.registry._running)
        )
    )
    second = Server(home, runtime)
    second.recover()
    assert second.list_steps(arn) == [("Step", "Executing")]
    second.operations["StopPipelineExecution"]({"PipelineExecutionArn": arn})
    assert second.wait_for_end(arn)["PipelineExecutionStatus"] == "Stopped"
    assert second.list_steps(arn) == [("Step", "Stopped")]
    assert second.count_resources("processing-job") == 1
    second.parts.close()


def test_retry_of_a_running_execution_is_refused_at_once(
    home: Home, runtime: FakeRuntime, behaviour: ImageBehaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    behaviour.exit_at_start = None
    server = Server(home, runtime)
    arn = server.start(make_definition())
    wait_until(lambda: runtime.started_hosts)
    monkeypatch.setattr(Registry, "wait_for_end", lambda *_: pytest.fail("the request waits for the execution"))
    with pytest.raises(ServiceError, match="is Executing: only a failed or stopped execution can be retried"):
        server.retry(arn)
    monkeypatch.undo()
    runtime.started_hosts[0].end(Exit(0))
    server.wait_for_end(arn)
    server.parts.close()
