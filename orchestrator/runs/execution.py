"""A pipeline execution, as a client sees it."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator.runs.kinds import ABSENT_CODES, Members
from microjobs_orchestrator.runs.pipelines import RUN_PARAMETER

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient

ACTIVE_STATUSES = ("Executing", "Stopping")
"""Statuses of an execution that has not ended."""

MIN_TOKEN_CHARACTERS = 32
"""Minimum length of a ClientRequestToken."""


def put_pipeline(client: "SageMakerClient", request: Members) -> None:
    """Create a pipeline, or update the pipeline with this name. `request` has the members of CreatePipeline."""
    from botocore.exceptions import ClientError

    members: Any = request
    try:
        client.describe_pipeline(PipelineName=members["PipelineName"])
    except ClientError as error:
        if error.response["Error"]["Code"] not in ABSENT_CODES:
            raise
        client.create_pipeline(**members)
        return
    client.update_pipeline(**{name: value for name, value in members.items() if name != "Tags"})


def list_running_executions(client: "SageMakerClient", run: str) -> "list[Execution]":
    """Return the running pipeline executions of a run, such as `housing-20261122-101500`."""
    from botocore.exceptions import ClientError

    any_client: Any = client
    try:
        pages = any_client.get_paginator("list_pipeline_executions").paginate(PipelineName=run.rsplit("-", 2)[0])
        summaries = [item for page in pages for item in page["PipelineExecutionSummaries"]]
    except ClientError as error:
        if error.response["Error"]["Code"] not in ABSENT_CODES:
            raise
        return []
    running = (item for item in summaries if item["PipelineExecutionStatus"] in ACTIVE_STATUSES)
    executions = [Execution(client, item["PipelineExecutionArn"]) for item in running]
    return [execution for execution in executions if execution.list_parameters().get(RUN_PARAMETER) == run]


class Execution:
    """An execution of a pipeline."""

    def __init__(self, client: "SageMakerClient", arn: str) -> None:
        self._client: Any = client  # boto3's type stubs require tokens, which botocore adds
        self.arn = arn

    @classmethod
    def start(cls, client: "SageMakerClient", pipeline: str, parameters: Mapping[str, str], token: str) -> "Execution":
        """Start a pipeline, or return the execution that an earlier call with the same token started.

        Args:
            parameters: values that replace the defaults.
            token: a text that is unique for the execution.
        """
        values: Any = [{"Name": name, "Value": value} for name, value in parameters.items()]
        response = client.start_pipeline_execution(
            PipelineName=pipeline, PipelineParameters=values, ClientRequestToken=token.ljust(MIN_TOKEN_CHARACTERS, "-")
        )
        return cls(client, response["PipelineExecutionArn"])

    @property
    def id(self) -> str:
        return self.arn.rpartition("/")[2]

    def describe(self) -> Members:
        description: Members = self._client.describe_pipeline_execution(PipelineExecutionArn=self.arn)
        return description

    def list_parameters(self) -> dict[str, str]:
        """Return the values of the parameters, by name."""
        paginator = self._client.get_paginator("list_pipeline_parameters_for_execution")
        pages = paginator.paginate(PipelineExecutionArn=self.arn)
        return {item["Name"]: item["Value"] for page in pages for item in page["PipelineParameters"]}

    def list_steps(self) -> Iterator[Members]:
        """Yield the steps that have started, newest first."""
        paginator = self._client.get_paginator("list_pipeline_execution_steps")
        for page in paginator.paginate(PipelineExecutionArn=self.arn, SortOrder="Descending"):
            yield from page["PipelineExecutionSteps"]

    def find_step(self, name: str) -> Members | None:
        """Return the step with this name if it has started, otherwise None.

        In the execution, the name of a branch precedes the names of its steps: `register` finds `tuned-register`, too.
        """
        return next((step for step in self.list_steps() if f"-{step['StepName']}".endswith(f"-{name}")), None)

    def stop(self) -> bool:
        """Stop the execution. Return False if it has ended."""
        if self.describe()["PipelineExecutionStatus"] not in ACTIVE_STATUSES:
            return False
        self._client.stop_pipeline_execution(PipelineExecutionArn=self.arn)
        return True

    def retry(self) -> None:
        """Continue an execution that failed or was stopped."""
        self._client.retry_pipeline_execution(PipelineExecutionArn=self.arn)
