"""Readers of a tuning job's TrainingJobDefinition."""

from collections.abc import Mapping
from typing import Any

RESOURCES = ("ResourceConfig", "HyperParameterTuningResourceConfig")
"""Where a definition says on how many hosts: by hand, and by the SageMaker SDK."""


OBJECTIVE = "_tuning_objective_metric"
"""The hyperparameter that names the objective metric: SageMaker adds it, and SDKs read it when they attach."""


def host_resources(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """The hosts of each training job."""
    resources: Mapping[str, Any] = next(definition[member] for member in RESOURCES if member in definition)
    return resources


def static_hyperparameters(definition: Mapping[str, Any]) -> Mapping[str, str]:
    static: Mapping[str, str] = definition.get("StaticHyperParameters", {})
    return static
