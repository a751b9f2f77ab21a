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
from microjobs_orchestrator.local.resources.processing.kinds import PROCESSING_JOB
from microjobs_orchestrator.local.resources.records import add_resource
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.state import Record

FOLDER = LAYOUT.processing("")
"""The folder that contains all inputs and outputs of a host."""


def create(context: Context, request: Mapping[str, Any]) -> Record:
    """Check a CreateProcessingJob request and add the job, which does not run yet.

    Raises:
        ValidationError: a LocalPath is not below FOLDER, a LocalPath or a name is used twice, or the bucket of an
            output does not exist.
        ResourceInUseError: a job of that name exists.
    """
    _check_names_and_paths(request)
    for item in request.get("ProcessingInputs", []):
        _check_path(item["S3Input"].get("LocalPath"), f"input {item['InputName']!r}")
        parse_uri(item["S3Input"]["S3Uri"])
    for item in output_items(request):
        _check_path(item["S3Output"].get("LocalPath"), f"output {item['OutputName']!r}")
        bucket, prefix = parse_uri(item["S3Output"]["S3Uri"])
        context.store.check_writable(bucket, outputs.join(prefix, "output"))
    return add_resource(context, PROCESSING_JOB, request)


def output_items(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the items of ProcessingOutputConfig.Outputs; none if the request has no outputs."""
    return list(request.get("ProcessingOutputConfig", {}).get("Outputs", []))


def _check_names_and_paths(request: Mapping[str, Any]) -> None:
    """Check that no two inputs have the same LocalPath or name, and that no two outputs have the same name.

    AWS refuses two inputs with the same LocalPath: https://github.com/aws/sagemaker-python-sdk/issues/4939. The checks
    of names are a decision of this project. The LocalPath of an input may be inside the LocalPath of another input:
    FrameworkProcessor puts its code below the usual input folder.

    Raises:
        ValidationError: two LocalPaths or two names are equal.
    """
    input_items = request.get("ProcessingInputs", [])
    paths = [str(PurePosixPath(item["S3Input"].get("LocalPath", item["InputName"]))) for item in input_items]
    inputs.check_unique("The LocalPaths of processing inputs", paths)
    inputs.check_unique("InputNames", [item["InputName"] for item in input_items])
    inputs.check_unique("OutputNames", [item["OutputName"] for item in output_items(request)])


def _check_path(path: str | None, description: str) -> None:
    if path is None or ".." in PurePosixPath(path).parts or not PurePosixPath(path).is_relative_to(FOLDER):
        raise ValidationError(f"LocalPath {path!r} of {description} must be a folder below {FOLDER}.")
