"""CreateProcessingJob: checks of its request. Source: facts §2.3."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from microjobs_orchestrator.local.errors import ResourceInUseError, ValidationError
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.lifecycle import inputs, outputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.job import LAYOUT
from microjobs_orchestrator.local.resources.processing.kinds import PROCESSING_JOB
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.state import NameTakenError, Record

FOLDER = LAYOUT.processing("")
"""Inputs and outputs lie below it (facts §2.3)."""


def create(context: Context, request: Mapping[str, Any]) -> Record:
    """Take a CreateProcessingJob request that is valid by itself; nothing runs yet.

    Raises:
        ValidationError: a LocalPath is elsewhere or that of another input, a name is that of another input or output,
            an output has no bucket.
        ResourceInUseError: there is a job of that name.
    """
    _check_differences(request)
    for item in request.get("ProcessingInputs", []):
        _check_path(item["S3Input"].get("LocalPath"), f"input {item['InputName']!r}")
        parse_uri(item["S3Input"]["S3Uri"])
    for item in output_items(request):
        _check_path(item["S3Output"].get("LocalPath"), f"output {item['OutputName']!r}")
        bucket, prefix = parse_uri(item["S3Output"]["S3Uri"])
        context.store.check(bucket, outputs.join(prefix, "output"))
    name = request["ProcessingJobName"]
    description = {
        **{member: value for member, value in request.items() if member != "Tags"},
        "ProcessingJobArn": format_arn(f"{PROCESSING_JOB.arn_type}/{name}", context.settings.region),
        "ProcessingJobStatus": "InProgress",
    }
    job_arn, tags = description["ProcessingJobArn"], request.get("Tags", [])
    try:
        return context.state.add(PROCESSING_JOB.arn_type, name, job_arn, "InProgress", request, description, tags=tags)
    except NameTakenError as error:
        raise ResourceInUseError(f"Job name must be unique: {name} already exists.") from error


def output_items(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(request.get("ProcessingOutputConfig", {}).get("Outputs", []))


def _check_differences(request: Mapping[str, Any]) -> None:
    """Raises ValidationError if two inputs have the same LocalPath or name, or two outputs the same name.

    AWS refuses inputs of one LocalPath (sagemaker-python-sdk issue 4939); the names are our decision. An input may
    lie in another one: FrameworkProcessor puts its code below the usual input folder.
    """
    given = request.get("ProcessingInputs", [])
    paths = [str(PurePosixPath(item["S3Input"].get("LocalPath", item["InputName"]))) for item in given]
    inputs.check_unique("The LocalPaths of processing inputs", paths)
    inputs.check_unique("InputNames", [item["InputName"] for item in given])
    inputs.check_unique("OutputNames", [item["OutputName"] for item in output_items(request)])


def _check_path(path: str | None, whose: str) -> None:
    if path is None or ".." in PurePosixPath(path).parts or not PurePosixPath(path).is_relative_to(FOLDER):
        raise ValidationError(f"LocalPath {path!r} of {whose} must be a folder below {FOLDER}.")
