"""The operations on processing jobs.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateProcessingJob.html
"""

from functools import partial
from pathlib import PurePosixPath

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle import inputs, outputs
from microjobs_orchestrator.local.lifecycle.job import LAYOUT
from microjobs_orchestrator.local.lifecycle.registry import Runnable
from microjobs_orchestrator.local.resources.experiments import job_trial_components
from microjobs_orchestrator.local.resources.operations import Request, RunningOperations
from microjobs_orchestrator.local.resources.processing.job import ProcessingJob
from microjobs_orchestrator.local.resources.processing.kinds import PROCESSING_JOB
from microjobs_orchestrator.local.resources.processing.plan import list_output_items
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.state import Record

FOLDER = LAYOUT.processing("")
"""The folder that contains all inputs and outputs of a host."""


class ProcessingJobOperations(RunningOperations):
    kind = PROCESSING_JOB

    def add(self, request: Request) -> Record:
        """Check the paths and the names of the inputs and outputs, and the buckets of the outputs; add the job.

        AWS refuses two inputs with the same LocalPath: https://github.com/aws/sagemaker-python-sdk/issues/4939. This
        project also refuses two inputs, or two outputs, with the same name. The LocalPath of an input may be inside the
        LocalPath of another input: FrameworkProcessor puts its code below the usual input folder.
        """
        input_items = request.get("ProcessingInputs", [])
        paths = [str(PurePosixPath(item["S3Input"]["LocalPath"])) for item in input_items]
        inputs.check_unique("The LocalPaths of processing inputs", paths)
        inputs.check_unique("InputNames", [item["InputName"] for item in input_items])
        inputs.check_unique("OutputNames", [item["OutputName"] for item in list_output_items(request)])
        for item in input_items:
            _check_path(item["S3Input"]["LocalPath"], f"input {item['InputName']!r}")
            parse_uri(item["S3Input"]["S3Uri"])
        for item in list_output_items(request):
            _check_path(item["S3Output"]["LocalPath"], f"output {item['OutputName']!r}")
            bucket, prefix = parse_uri(item["S3Output"]["S3Uri"])
            self.context.store.check_writable(bucket, outputs.join_key(prefix, "output"))
        return job_trial_components.add_job(self.context, request, partial(super().add, request))

    def make_runnable(self, record: Record) -> Runnable:
        return ProcessingJob(self.context, record)


def _check_path(path: str, description: str) -> None:
    if ".." in PurePosixPath(path).parts or not PurePosixPath(path).is_relative_to(FOLDER):
        raise ValidationError(
            f"LocalPath {path!r} of {description} must be {FOLDER} or a folder below it, without '..'."
        )
