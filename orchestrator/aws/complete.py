"""What AWS wants of requests beside the work itself: tags, a network, keys, spot instances."""

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from orchestrator.aws.settings import Settings
from orchestrator.workflows.place import Answer

RUN_TAG = "microjobs:run"
"""On everything that a run creates: bills can be split by it."""

LOCAL_DISKS = re.compile(r"ml\.(?:[a-z]+\d+[a-z]*d[a-z]*|g[5-9][a-z]*|p[4-9][a-z]*|i\d\w*|trn\d\w*)\.")
"""Families with disks of their own, which hardware encrypts: AWS refuses a key for their volume.
Source: the API reference on VolumeKmsKeyId. The names have a `d`, but for some with GPUs."""


@dataclass(frozen=True)
class Completing:
    """Adds to each request what the settings ask for."""

    settings: Settings

    def __call__(self, run: str, operation: str, request: Answer) -> Answer:
        asked: dict[str, Any] = deepcopy(dict(request))
        getattr(self, f"_{operation}", lambda _asked: None)(asked)
        asked["Tags"] = [{"Key": key, "Value": value} for key, value in ({**self.settings.tags, RUN_TAG: run}).items()]
        return asked

    # --- an operation each ---

    def _CreateProcessingJob(self, asked: dict[str, Any]) -> None:  # noqa: N802  named as the operation
        if self._network:
            asked["NetworkConfig"] = {"VpcConfig": self._network}
        if self.settings.kms_key and asked["ProcessingOutputConfig"]["Outputs"]:
            asked["ProcessingOutputConfig"]["KmsKeyId"] = self.settings.kms_key
        self._encrypt_volume(asked["ProcessingResources"]["ClusterConfig"])

    def _CreateTrainingJob(self, asked: dict[str, Any]) -> None:  # noqa: N802
        if self._network:
            asked["VpcConfig"] = self._network
        if self.settings.kms_key:
            asked["OutputDataConfig"]["KmsKeyId"] = self.settings.kms_key
        self._encrypt_volume(asked["ResourceConfig"])
        if self.settings.spot:
            asked["EnableManagedSpotTraining"] = True
            stopping = asked["StoppingCondition"]
            stopping["MaxWaitTimeInSeconds"] = stopping["MaxRuntimeInSeconds"] + 60 * self.settings.spot_wait_minutes

    def _CreateHyperParameterTuningJob(self, asked: dict[str, Any]) -> None:  # noqa: N802
        self._CreateTrainingJob(asked["TrainingJobDefinition"])

    def _CreateModel(self, asked: dict[str, Any]) -> None:  # noqa: N802
        if self._network:
            asked["VpcConfig"] = self._network

    def _CreateEndpointConfig(self, asked: dict[str, Any]) -> None:  # noqa: N802
        types = [variant["InstanceType"] for variant in asked["ProductionVariants"]]
        if self.settings.kms_key and not any(map(LOCAL_DISKS.match, types)):
            asked["KmsKeyId"] = self.settings.kms_key

    # --- parts ---

    @property
    def _network(self) -> Mapping[str, list[str]]:
        if not self.settings.subnets:
            return {}
        return {"Subnets": list(self.settings.subnets), "SecurityGroupIds": list(self.settings.security_groups)}

    def _encrypt_volume(self, resources: dict[str, Any]) -> None:
        if self.settings.kms_key and not LOCAL_DISKS.match(resources["InstanceType"]):
            resources["VolumeKmsKeyId"] = self.settings.kms_key
