"""A run whose jobs are created by a pipeline execution. The run follows the jobs, and deploys the registered model."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.runs.execution import ACTIVE_STATUSES, Execution, put_pipeline
from microjobs_orchestrator.runs.follower import check_success
from microjobs_orchestrator.runs.journal import JournalEntry
from microjobs_orchestrator.runs.kinds import MODEL, Members
from microjobs_orchestrator.runs.pipelines import REGISTER_STEP, RUN_PARAMETER, Pipeline, make_create_request
from microjobs_orchestrator.runs.planned import PlannedRequest
from microjobs_orchestrator.runs.progress import StepDisplay
from microjobs_orchestrator.runs.run import STOP_TIMEOUT_SECONDS, Run


class PipelineRun(Run):
    """Runs the steps of a workflow as a pipeline, which is created or updated first.

    Args:
        pipeline: the pipeline of the workflow.
        Other arguments are those of `Run`.
    """

    def __init__(self, pipeline: Pipeline, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pipeline = pipeline
        self._execution: Execution | None = None

    def run_job(self, planned: PlannedRequest) -> Members:
        """Wait for the end of the job that a step of the pipeline creates, and return its description.

        The first call starts the pipeline, or continues the execution of an earlier attempt.

        Raises:
            JobFailedError: the job did not end as Completed, or the pipeline ended without creating it.
        """
        with self._progress.step(planned.title) as display, self._stop_on_failure():
            name = self._wait_for_resource(planned.step, display)
            description = self._follower.follow(planned.kind, name, display)
            if self.journal.find_entry(planned.step) is None:
                self._costs.add_job(planned.kind, description)
                check_success(planned.kind, name, description, display)
                self._add_entry(JournalEntry(planned.step, planned.title, planned.kind.noun, name, display.seconds))
        return description

    @contextlib.contextmanager
    def create_temporary_endpoint(self, requests: Sequence[PlannedRequest]) -> Iterator[str]:
        """Approve the registered model, and create an endpoint for it, as `Run.create_temporary_endpoint` does."""
        with self._progress.step("Approval") as display, self._stop_on_failure():
            package_arn = self._wait_for_arn(REGISTER_STEP, display)
            self.backend.sagemaker.update_model_package(ModelPackageArn=package_arn, ModelApprovalStatus="Approved")
        self._progress.print_note(f"approved {package_arn}")
        with super().create_temporary_endpoint([_use_package(planned, package_arn) for planned in requests]) as name:
            yield name

    # --- the execution ---

    def _open_execution(self) -> Execution:
        """Start the pipeline, or continue the execution of an earlier attempt."""
        client = self.backend.sagemaker
        if self._execution is None:
            if self.journal.execution:
                self._execution = Execution(client, self.journal.execution)
                if self._execution.describe()["PipelineExecutionStatus"] in ("Failed", "Stopped"):
                    self._execution.retry()
            else:
                put_pipeline(client, make_create_request(self, self._pipeline))
                with self.interrupts.delay_ctrl_c():
                    parameters = {RUN_PARAMETER: self.id}
                    self._execution = Execution.start(client, self._pipeline.name, parameters, self.id)
                    self.journal.execution = self._execution.arn
                    self.journal.save()
            self._progress.print_note(f"pipeline {self._pipeline.name}, execution {self._execution.id}")
        return self._execution

    def _wait_for_resource(self, step_name: str, display: StepDisplay) -> str:
        """Return the name of the resource that a step creates."""
        return self._wait_for_arn(step_name, display).rpartition("/")[2]

    def _wait_for_arn(self, step_name: str, display: StepDisplay) -> str:
        """Return the ARN of the resource that a step creates, as soon as it exists.

        Raises:
            JobFailedError: the step, or the pipeline before it, ended without a resource.
        """
        execution = self._open_execution()
        while True:
            description, step = execution.describe(), execution.find_step(step_name) or {}
            if arn := _find_arn(step.get("Metadata", {})):
                return arn
            has_ended = description["PipelineExecutionStatus"] not in ACTIVE_STATUSES
            if has_ended or step.get("StepStatus") in ("Failed", "Stopped"):
                reason = step.get("FailureReason") or description.get("FailureReason") or "no reason was reported"
                raise display.make_failure(step_name, step.get("StepStatus", "not started"), reason)
            self._progress.show_status(display, step.get("StepStatus", "waiting"))
            time.sleep(self.backend.poll_interval)

    @contextlib.contextmanager
    def _stop_on_failure(self) -> Iterator[None]:
        """Stop the execution if Ctrl-C or a failure ends the block."""
        try:
            yield
        except BaseException:
            if self._execution is not None:
                # `_remove_on_failure` stops the execution (with `keep`, prints a note), and raises the error again.
                with self._remove_on_failure(self._execution.id, self._stop_execution):
                    raise
            raise

    def _stop_execution(self, execution_id: str) -> None:
        execution = self._execution
        if execution is None or not execution.stop():
            return
        self._progress.print_note(f"stopping {execution_id}")
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        while execution.describe()["PipelineExecutionStatus"] in ACTIVE_STATUSES:
            if time.monotonic() > deadline:
                raise CommandError(f"it did not stop within {STOP_TIMEOUT_SECONDS} s")
            time.sleep(self.backend.poll_interval)


def _find_arn(metadata: Mapping[str, Mapping[str, str]]) -> str:
    """Return the ARN in a step's metadata, or the empty string."""
    return next((item["Arn"] for item in metadata.values() if "Arn" in item), "")


def _use_package(planned: PlannedRequest, package_arn: str) -> PlannedRequest:
    """Change a model's request, so that the model comes from a package of the model registry. Return other requests
    unchanged."""
    if planned.kind is not MODEL:
        return planned
    return replace(planned, members={**planned.members, "PrimaryContainer": {"ModelPackageName": package_arn}})
