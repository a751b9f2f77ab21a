"""Servers in the process of the test, with a fake runtime."""

import json
from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.resources.operations import get_runnable_makers_by_kind, load_operations
from microjobs_orchestrator.local.services.sagemaker import SageMaker
from microjobs_orchestrator.local.state import Query, State
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import FakeRuntime
from tests.polling import wait_until

ROLE = "arn:aws:iam::000000000000:role/microjobs"


class Server:
    """A server in this process. A second server with the same home behaves as if the first one had been killed."""

    def __init__(self, home: Home, runtime: FakeRuntime) -> None:
        self.parts = ServerParts.from_home(home, runtime)
        kind_operations = load_operations(self.parts.context, self.parts.registry)
        self.operations = SageMaker(self.parts.context, kind_operations).list_handlers()
        self._makers = get_runnable_makers_by_kind(kind_operations)

    @property
    def state(self) -> State:
        return self.parts.context.state

    def recover(self) -> None:
        self.parts.registry.recover(self._makers)

    def start(self, definition: Mapping[str, Any], **request: Any) -> str:
        """Create the pipeline `p` and start it; return the ARN of the execution."""
        members = {"PipelineName": "p", "PipelineDefinition": json.dumps(definition), "RoleArn": ROLE}
        self.operations["CreatePipeline"]({**members, "ClientRequestToken": "t" * 32})
        request = {"PipelineName": "p", "ClientRequestToken": "t" * 32, **request}
        response = self.operations["StartPipelineExecution"](request)
        return str(response["PipelineExecutionArn"])

    def describe(self, arn: str) -> Mapping[str, Any]:
        return self.operations["DescribePipelineExecution"]({"PipelineExecutionArn": arn})

    def wait_for_end(self, arn: str) -> Mapping[str, Any]:
        description: Mapping[str, Any] = wait_until(
            lambda: self.describe(arn),
            lambda description: description["PipelineExecutionStatus"] not in ("Executing", "Stopping"),
        )
        return description

    def retry(self, arn: str) -> Mapping[str, Any]:
        """Retry an execution; return its description when it has ended."""
        self.operations["RetryPipelineExecution"]({"PipelineExecutionArn": arn, "ClientRequestToken": "r" * 32})
        return self.wait_for_end(arn)

    def list_steps(self, arn: str) -> list[tuple[str, str]]:
        request = {"PipelineExecutionArn": arn, "SortOrder": "Ascending"}
        steps = self.operations["ListPipelineExecutionSteps"](request)["PipelineExecutionSteps"]
        return [(step["StepName"], step["StepStatus"]) for step in steps]

    def is_idle(self) -> bool:
        """Return whether all threads of jobs and executions have ended."""
        return not self.parts.registry._running

    def count_resources(self, kind: str) -> int:
        return len(self.state.find(Query(kind)))
