"""What AWS wants of requests beside the work itself: tags, a network, keys, spot instances."""

import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from microjobs_orchestrator.aws.settings import Settings
from microjobs_orchestrator.runs.backend import Complete
from microjobs_orchestrator.runs.kinds import Members

RUN_TAG = "microjobs:run"
"""On everything that a run creates: bills can be split by it."""

LOCAL_DISKS = re.compile(r"ml\.(?:[a-z]+\d+[a-z]*d[a-z]*|g[5-9][a-z]*|p[4-9][a-z]*|i\d\w*|trn\d\w*)\.")
"""Families with disks of their own, which hardware encrypts: AWS refuses a key for their volume.
Source: the API reference on VolumeKmsKeyId. The names have a `d`, but for some with GPUs."""


def completing(settings: Settings) -> Complete:
    """What adds to each request what the settings ask for."""

    def complete(run: str, operation: str, request: Members) -> Members:
        asked: dict[str, Any] = deepcopy(dict(request))
        if operation in ADDED:
            ADDED[operation](settings, asked)
        tags = {**settings.tags, RUN_TAG: run}
        return {**asked, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    return complete


# --- an operation each ---


def _processing(settings: Settings, asked: dict[str, Any]) -> None:
    if settings.subnets:
        asked["NetworkConfig"] = {"VpcConfig": _network(settings)}
    if settings.kms_key:
        asked["ProcessingOutputConfig"]["KmsKeyId"] = settings.kms_key
    _encrypt_volume(settings, asked["ProcessingResources"]["ClusterConfig"])


def _training(settings: Settings, asked: dict[str, Any]) -> None:
    """A training job, or the definition of those that a tuning job starts."""
    _into_network(settings, asked)
    if settings.kms_key:
        asked["OutputDataConfig"]["KmsKeyId"] = settings.kms_key
    _encrypt_volume(settings, asked["ResourceConfig"])
    if settings.spot:
        asked["EnableManagedSpotTraining"] = True
        stopping = asked["StoppingCondition"]
        stopping["MaxWaitTimeInSeconds"] = stopping["MaxRuntimeInSeconds"] + 60 * settings.spot_wait_minutes


def _tuning(settings: Settings, asked: dict[str, Any]) -> None:
    _training(settings, asked["TrainingJobDefinition"])


def _into_network(settings: Settings, asked: dict[str, Any]) -> None:
    if settings.subnets:
        asked["VpcConfig"] = _network(settings)


def _endpoint_config(settings: Settings, asked: dict[str, Any]) -> None:
    types = [variant["InstanceType"] for variant in asked["ProductionVariants"]]
    if settings.kms_key and not any(map(LOCAL_DISKS.match, types)):
        asked["KmsKeyId"] = settings.kms_key


ADDED: dict[str, Callable[[Settings, dict[str, Any]], None]] = {
    "CreateProcessingJob": _processing,
    "CreateTrainingJob": _training,
    "CreateHyperParameterTuningJob": _tuning,
    "CreateModel": _into_network,
    "CreateEndpointConfig": _endpoint_config,
}


# --- parts ---


def _network(settings: Settings) -> dict[str, list[str]]:
    return {"Subnets": list(settings.subnets), "SecurityGroupIds": list(settings.security_groups)}


def _encrypt_volume(settings: Settings, resources: dict[str, Any]) -> None:
    if settings.kms_key and not LOCAL_DISKS.match(resources["InstanceType"]):
        resources["VolumeKmsKeyId"] = settings.kms_key
