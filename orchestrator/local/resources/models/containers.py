"""The containers of a model: their definitions, names, hosts and ports.

Sources: https://docs.aws.amazon.com/sagemaker/latest/dg/inference-pipelines.html
https://docs.aws.amazon.com/sagemaker/latest/dg/multi-container-direct.html
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from microjobs.contract import BIND_TO_PORT
from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle import inputs
from microjobs_orchestrator.local.resources.models.client import PRIMARY
from microjobs_orchestrator.local.resources.models.model_data import is_multi_model

Container = Mapping[str, Any]
"""A ContainerDefinition of a CreateModel request."""

PACKAGED_CONTAINERS = "PackagedContainers"
"""Member of a model's stored request: all containers, also those of the model packages that the request names."""

MAX_CONTAINERS = 15
PORT = 8080
"""The port of a model's only container."""
FIRST_PORT = 8081
"""The port of the first of several containers. On AWS they share one machine, so each has a port of its own. No
container gets 8080: a container that ignores the variable fails whatever its position is."""
FIRST_SAFE_PORT, SAFE_PORTS = 10_000, 1_000
"""The ports for a container's own use: the first container's first one, and their number per container."""


def list_containers(model: Mapping[str, Any]) -> Sequence[Container]:
    """Return the containers of a model's stored request, or of a CreateModel request."""
    if PACKAGED_CONTAINERS in model:
        packaged: Sequence[Container] = model[PACKAGED_CONTAINERS]
        return packaged
    return [model["PrimaryContainer"]] if "PrimaryContainer" in model else model.get("Containers", [])


def is_direct(model: Mapping[str, Any]) -> bool:
    """Return whether each request names its container. Otherwise, all containers process it, one after the other."""
    config = model.get("InferenceExecutionConfig", {})
    return "PrimaryContainer" not in model and config.get("Mode") == "Direct"


def refuse_direct(model: Mapping[str, Any], feature: str) -> None:
    """Raise ValidationError if each request to a model must name its container, because a feature's requests cannot."""
    if is_direct(model):
        raise ValidationError(
            f"{feature} does not support models with InferenceExecutionConfig Mode Direct, such as "
            f"{model['ModelName']}: use a model with the Mode Serial, or with one container."
        )


def list_names(model: Mapping[str, Any]) -> Sequence[str]:
    """Return the names of a model's containers in logs, errors and requests."""
    containers = list_containers(model)
    if len(containers) == 1 and not is_direct(model):
        return [PRIMARY]
    return [container.get("ContainerHostname") or f"container-{n}" for n, container in enumerate(containers, 1)]


def check_containers(containers: Sequence[Container], *, are_chosen: bool) -> None:
    """Raise ValidationError if a container has no image, or the number or the names of the containers are invalid.

    Args:
        are_chosen: each request names its container.
    """
    if not 1 <= len(containers) <= MAX_CONTAINERS:
        raise ValidationError(f"A model has 1 to {MAX_CONTAINERS} containers, not {len(containers)}.")
    if not all(container.get("Image") for container in containers):
        raise ValidationError("A container must have an Image, or a ModelPackageName whose package has an Image.")
    _check_multi_model_containers(sum(map(is_multi_model, containers)), are_chosen=are_chosen)
    names = [container["ContainerHostname"] for container in containers if container.get("ContainerHostname")]
    if 0 < len(names) < len(containers):
        raise ValidationError("If one container has a ContainerHostname, all containers must have one.")
    inputs.check_unique("ContainerHostnames", names)
    if are_chosen and not 1 < len(containers) == len(names):
        raise ValidationError("Mode Direct requires several containers, and a ContainerHostname for each of them.")


def _check_multi_model_containers(count: int, *, are_chosen: bool) -> None:
    if count > 1:
        raise ValidationError(f"A model has at most one container with Mode MultiModel, not {count}: set SingleModel.")
    if count and are_chosen:
        raise ValidationError("Mode MultiModel is not supported together with Mode Direct: set Mode Serial.")


@dataclass(frozen=True)
class ContainerHost:
    """The host of one container on one instance."""

    name: str
    """The instance's name, if the model has one container. The hosts of an instance sort in the containers' order."""
    instance: str
    number: int
    """The container's number in the model, from 0."""
    stream_suffix: str
    """The end of the log stream's name, after the instance: empty, or the container's name."""
    port: int
    variables: Mapping[str, str]
    """The variables that tell the container its ports. A single container gets none."""


def list_hosts(model: Mapping[str, Any], instances: Sequence[str]) -> Sequence[ContainerHost]:
    """Return the hosts of a model's containers on some instances."""
    names = list_names(model)
    if len(names) == 1:
        return [ContainerHost(instance, instance, 0, "", PORT, {}) for instance in instances]
    return [_make_host(instance, number, name) for instance in instances for number, name in enumerate(names)]


def _make_host(instance: str, number: int, name: str) -> ContainerHost:
    port, first_safe = FIRST_PORT + number, FIRST_SAFE_PORT + number * SAFE_PORTS
    variables = {
        BIND_TO_PORT: str(port),
        "SAGEMAKER_SAFE_PORT_RANGE": f"{first_safe}-{first_safe + SAFE_PORTS - 1}",
    }
    return ContainerHost(f"{instance}-{number + 1:02}", instance, number, f"/{name}", port, variables)
