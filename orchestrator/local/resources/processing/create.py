"""CreateProcessingJob: checks of the request.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateProcessingJob.html
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle import inputs, outputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.job import LAYOUT
from microjobs_orchestrator.local.resources.operations import add_resource
from microjobs_orchestrator.local.resources.processing.kinds import PROCESSING_JOB
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.state import Record

FOLDER = LAYOUT.processing("")
"""The folder that contains all inputs and outputs of a host."""


def create(context: Context, request: Mapping[str, Any]) -> Record:
    """Check a CreateProcessingJob request and add the job, which does not run yet.

    AWS refuses two inputs with the same LocalPath: https://github.com/aws/sagemaker-python-sdk/issues/4939. The checks
    of names are a decision of this project. The LocalPath of an input may be inside the LocalPath of another input:
    FrameworkProcessor puts its code below the usual input folder.

    Raises:
        ValidationError: a LocalPath is not below FOLDER, a LocalPath or a name is used twice, or the bucket of an
            output does not exist.
        ResourceInUseError: a job of that name exists.
    """
    input_items = request.get("ProcessingInputs", [])
    paths = [str(PurePosixPath(item["S3Input"]["LocalPath"])) for item in input_items]
    inputs.check_unique("The LocalPaths of processing inputs", paths)
    inputs.check_unique("InputNames", [item["InputName"] for item in input_items])
    inputs.check_unique("OutputNames", [item["OutputName"] for item in output_items(request)])
    for item in input_items:
        _check_path(item["S3Input"]["LocalPath"], f"input {item['InputName']!r}")
        parse_uri(item["S3Input"]["S3Uri"])
    for item in output_items(request):
        _check_path(item["S3Output"]["LocalPath"], f"output {item['OutputName']!r}")
        bucket, prefix = parse_uri(item["S3Output"]["S3Uri"])
        context.store.check_writable(bucket, outputs.join(prefix, "output"))
    return add_resource(context, PROCESSING_JOB, request)


def output_items(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the items of ProcessingOutputConfig.Outputs; none if the request has no outputs."""
    return list(request.get("ProcessingOutputConfig", {}).get("Outputs", []))


def _check_path(path: str, description: str) -> None:
    if ".." in PurePosixPath(path).parts or not PurePosixPath(path).is_relative_to(FOLDER):
        raise ValidationError(f"LocalPath {path!r} of {description} must be a folder below {FOLDER}.")
