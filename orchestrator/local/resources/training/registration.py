"""The registration of a completed job's model in a model package group: ModelPackageConfig."""

from collections.abc import Callable, Mapping
from typing import Any

from microjobs_orchestrator.local.kinds import JobStatus
from microjobs_orchestrator.local.lifecycle.job import JobHandle
from microjobs_orchestrator.local.resources.model_registry import create
from microjobs_orchestrator.local.resources.training.create import make_model_uri


def prepare_registration(job: JobHandle, status: str) -> Callable[[], dict[str, Any]]:
    """Return a function that registers the model of a job, and returns members of the job's description. If the job
    requests no registration, or did not complete, the function registers nothing.

    Call the returned function in the transaction that ends the job: then a crash leaves either an ended job with its
    package, or a running job without a package.

    Args:
        status: the final status of the job.

    Raises:
        ValidationError: the model does not exist. The returned function raises ValidationError if the group does not
            exist.
    """
    if "ModelPackageConfig" not in job.request or status != JobStatus.COMPLETED:
        return dict  # a function that registers nothing, and returns no members
    request = _make_request(job)
    members = create.make_checked_members(job.context, request)
    return lambda: {"OutputModelPackageArn": create.add(job.context, request, members).arn}


def _make_request(job: JobHandle) -> dict[str, Any]:
    """Return the CreateModelPackage request of a job. The training image is also the image for inference."""
    container = {"Image": job.request["AlgorithmSpecification"]["TrainingImage"], **_locate_model(job.request)}
    return {
        "ModelPackageGroupName": job.request["ModelPackageConfig"]["ModelPackageGroupArn"],
        "InferenceSpecification": {"Containers": [container]},
        "MetadataProperties": {"GeneratedBy": job.arn},
    }


def _locate_model(request: Mapping[str, Any]) -> dict[str, Any]:
    uri = make_model_uri(request)
    if not uri.endswith("/"):
        return {"ModelDataUrl": uri}
    source = {"S3Uri": uri, "S3DataType": "S3Prefix", "CompressionType": "None"}
    return {"ModelDataSource": {"S3DataSource": source}}
