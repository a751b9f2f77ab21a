"""CreateTrainingJob: checks of the request, and the description of a new job.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from microjobs_orchestrator.local.clock import Moment
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.lifecycle import outputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.experiments import job_trial_components
from microjobs_orchestrator.local.resources.mlflow import rest_client
from microjobs_orchestrator.local.resources.model_registry.names import find_group
from microjobs_orchestrator.local.resources.operations import add_resource
from microjobs_orchestrator.local.resources.training import tensorboard, time_limits
from microjobs_orchestrator.local.resources.training.channels import check_channels
from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB
from microjobs_orchestrator.local.resources.training.metrics import compile_definition
from microjobs_orchestrator.local.resources.training.secondary_status import enter_status
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.state import Owner, Record

CREATION_MOMENT = "CreationMoment"
"""Key in a job's internal state. The value is the time of the job's creation, as `Moment.to_members` returns it."""


def create(context: Context, request: Mapping[str, Any], owner: Owner | None = None) -> Record:
    """Check a CreateTrainingJob request and add the job, which does not run yet.

    Args:
        owner: the tuning job that creates the training job; None if a user creates it.

    Raises:
        ValidationError: the request is invalid, see `check_request`; its model package group does not exist; or its
            MLflow server is not running.
        ResourceInUseError: a job of that name exists.
    """
    check_request(context, request)
    if "ModelPackageConfig" in request:
        find_group(context, request["ModelPackageConfig"]["ModelPackageGroupArn"])
    if "MlflowConfig" in request:
        rest_client.find_active_server(context, request["MlflowConfig"]["MlflowResourceArn"])
    now = Moment.now()
    flags = ("EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "EnableManagedSpotTraining")
    members = {
        # The SageMaker SDK raises KeyError if KmsKeyId is missing.
        "OutputDataConfig": {"KmsKeyId": "", "CompressionType": "GZIP", **request["OutputDataConfig"]},
        "ModelArtifacts": {"S3ModelArtifacts": make_model_uri(request)},
        **enter_status([], "Starting", now.wall),
    }
    if owner is not None:
        members["TuningJobArn"] = format_arn(f"{owner.kind}/{owner.name}", context.settings.region)
    defaults, internal = dict.fromkeys(flags, False), {CREATION_MOMENT: now.to_members()}
    add = partial(
        add_resource,
        context,
        TRAINING_JOB,
        request,
        defaults=defaults,
        members=members,
        internal=internal,
        owner=owner,
    )
    return job_trial_components.add_job(context, request, add)


def check_request(context: Context, request: Mapping[str, Any]) -> None:
    """Check the members that CreateTrainingJob and the TrainingJobDefinition of a tuning job have in common.

    Raises:
        ValidationError: a channel is invalid or has no objects, the bucket of an output does not exist, the time
            limits contradict each other, or the regular expression of a metric cannot be used.
    """
    for definition in request["AlgorithmSpecification"].get("MetricDefinitions", []):
        compile_definition(definition)
    time_limits.check(request)
    check_channels(request, context.store)
    context.store.check_writable(*parse_uri(make_model_uri(request).rstrip("/")))
    if "TensorBoardOutputConfig" in request:
        tensorboard.check_config(context, request["TensorBoardOutputConfig"])


def make_model_uri(request: Mapping[str, Any]) -> str:
    """Return the URI of the model: an archive, or a folder if CompressionType is NONE."""
    is_folder = request["OutputDataConfig"].get("CompressionType") == "NONE"
    return make_output_uri(request, "model/" if is_folder else "model.tar.gz")


def make_output_uri(request: Mapping[str, Any], name: str) -> str:
    return outputs.join_key(request["OutputDataConfig"]["S3OutputPath"], f"{request['TrainingJobName']}/output/{name}")
