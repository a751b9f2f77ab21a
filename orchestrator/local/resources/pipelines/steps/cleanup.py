"""Cleanup steps, which delete the objects that earlier steps have stored."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.lifecycle.outputs import join_key
from microjobs_orchestrator.local.resources.pipelines import cache
from microjobs_orchestrator.local.resources.pipelines.definition.values import StepType
from microjobs_orchestrator.local.resources.pipelines.step_run import REQUEST, Failure, StepChange, StepRun, StepStatus
from microjobs_orchestrator.local.resources.pipelines.steps.runner import Runner
from microjobs_orchestrator.local.s3.keys import parse_uri


class CleanupRunner(Runner):
    """Runs Cleanup steps. `S3Uris` lists the objects to delete. For a Training step, it may be missing: then all
    outputs are deleted."""

    def start(self, run: StepRun, arguments: Mapping[str, Any]) -> StepChange:  # noqa: ARG002
        cleaned_names, skipped_names, failures = [], [], []
        for source in arguments["Resources"]["S3"]:
            name = source["StepName"]
            earlier_run = self.tools.find_run(name)
            if earlier_run is None or earlier_run.record.internal.get(REQUEST) is None:
                skipped_names.append(name)
                continue
            try:
                self._delete(earlier_run, source.get("S3Uris"))
                cleaned_names.append(name)
            except ServiceError as error:
                failures.append({"StepName": name, "ErrorCode": "ClientError", "ErrorMessage": error.message})
        metadata = {"CleanedSteps": cleaned_names, "FailedSteps": failures, "SkippedSteps": skipped_names}
        if failures:
            reasons = "; ".join(f"{item['StepName']}: {item['ErrorMessage']}" for item in failures)
            return StepChange(StepStatus.FAILED, {"Cleanup": metadata}, Failure(f"ClientError: {reasons}"))
        return StepChange(StepStatus.SUCCEEDED, {"Cleanup": metadata})

    def _delete(self, run: StepRun, uris: Sequence[str] | None) -> None:
        """Delete the objects with these URIs. If `uris` is None, delete all outputs of a training job.

        Raises:
            ServiceError: a URI is not valid, or is not below the outputs of the step; or `uris` is None, but the step
                is not a Training step.
        """
        outputs = list(_list_output_uris(run))
        if uris is None and run.step.type is not StepType.TRAINING:
            raise ValidationError(
                f"S3Uris must list the objects to delete: step {run.name} is of type {run.step.type}."
            )
        for uri in uris or ():
            if not any(uri.startswith(join_key(output, "")) for output in outputs):
                raise ValidationError(f"{uri} is not below an output of step {run.name}: {', '.join(outputs)}.")
        cache.forget_result(self.tools.context.state, run)
        store = self.tools.context.store
        for bucket, key in [parse_uri(uri) for uri in uris or ()]:
            store.delete(bucket, key)
        for bucket, prefix in [parse_uri(join_key(output, "")) for output in outputs if uris is None]:
            for stored_object in list(store.list(bucket, prefix)):
                store.delete(bucket, stored_object.key)


def _list_output_uris(run: StepRun) -> Iterator[str]:
    """Yield the S3 URIs of the folders that contain the outputs of a step's job."""
    request: Mapping[str, Any] = run.record.internal[REQUEST]
    if run.step.type is StepType.TRAINING:
        yield join_key(request["OutputDataConfig"]["S3OutputPath"], request["TrainingJobName"])
    elif run.step.type is StepType.PROCESSING:
        for output in request.get("ProcessingOutputConfig", {}).get("Outputs", []):
            yield output["S3Output"]["S3Uri"]
    elif run.step.type is StepType.TRANSFORM:
        yield request["TransformOutput"]["S3OutputPath"]
