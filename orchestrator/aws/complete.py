"""Adds to requests what the settings ask for on AWS: tags, a network, keys, spot instances."""

import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from microjobs_orchestrator.aws.settings import Settings
from microjobs_orchestrator.runs.backend import Complete
from microjobs_orchestrator.runs.kinds import Members

RUN_TAG = "microjobs:run"
"""The tag of everything that a run creates, so that bills can be split by run."""

LOCAL_DISKS = re.compile(r"ml\.(?:[a-z]+\d+[a-z]*d[a-z]*|g[5-9][a-z]*|p[4-9][a-z]*|i\d\w*|trn\d\w*)\.")
"""Instance types with local disks, which hardware encrypts. AWS refuses a key for their volume. Most names have a `d`;
some types with GPUs do not.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ResourceConfig.html
"""


def make_complete(settings: Settings) -> Complete:
    """Return the function that completes each request."""

    def complete(run: str, operation: str, request: Members) -> Members:
        completed: dict[str, Any] = deepcopy(dict(request))
        if operation in COMPLETIONS:
            COMPLETIONS[operation](settings, completed)
        tags = {**settings.tags, RUN_TAG: run}
        return {**completed, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    return complete


# --- one function per operation ---


def _processing(settings: Settings, request: dict[str, Any]) -> None:
    if settings.subnets:
        request["NetworkConfig"] = {"VpcConfig": _network(settings)}
    if settings.kms_key:
        request["ProcessingOutputConfig"]["KmsKeyId"] = settings.kms_key
    _encrypt_volume(settings, request["ProcessingResources"]["ClusterConfig"])


def _training(settings: Settings, request: dict[str, Any]) -> None:
    """Complete the request of a training job, or a tuning job's definition of training jobs."""
    _add_network(settings, request)
    if settings.kms_key:
        request["OutputDataConfig"]["KmsKeyId"] = settings.kms_key
    _encrypt_volume(settings, request["ResourceConfig"])
    if settings.spot:
        request["EnableManagedSpotTraining"] = True
        stopping = request["StoppingCondition"]
        stopping["MaxWaitTimeInSeconds"] = stopping["MaxRuntimeInSeconds"] + 60 * settings.spot_wait_minutes


def _tuning(settings: Settings, request: dict[str, Any]) -> None:
    _training(settings, request["TrainingJobDefinition"])


def _add_network(settings: Settings, request: dict[str, Any]) -> None:
    if settings.subnets:
        request["VpcConfig"] = _network(settings)


def _endpoint_config(settings: Settings, request: dict[str, Any]) -> None:
    types = [variant["InstanceType"] for variant in request["ProductionVariants"]]
    if settings.kms_key and not any(map(LOCAL_DISKS.match, types)):
        request["KmsKeyId"] = settings.kms_key


COMPLETIONS: dict[str, Callable[[Settings, dict[str, Any]], None]] = {
    "CreateProcessingJob": _processing,
    "CreateTrainingJob": _training,
    "CreateHyperParameterTuningJob": _tuning,
    "CreateModel": _add_network,
    "CreateEndpointConfig": _endpoint_config,
}


# --- parts ---


def _network(settings: Settings) -> dict[str, list[str]]:
    return {"Subnets": list(settings.subnets), "SecurityGroupIds": list(settings.security_groups)}


def _encrypt_volume(settings: Settings, resources: dict[str, Any]) -> None:
    if settings.kms_key and not LOCAL_DISKS.match(resources["InstanceType"]):
        resources["VolumeKmsKeyId"] = settings.kms_key
