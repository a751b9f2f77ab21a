"""The containers of a model: their definitions, names, hosts and ports.

Sources: https://docs.aws.amazon.com/sagemaker/latest/dg/inference-pipelines.html
https://docs.aws.amazon.com/sagemaker/latest/dg/multi-container-direct.html
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from microjobs.contract import BIND_TO_PORT_VARIABLE
from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle import inputs
from microjobs_orchestrator.local.resources.models.client import PRIMARY
from microjobs_orchestrator.local.resources.models.model_data import is_multi_model

Container = Mapping[str, Any]
"""A ContainerDefinition of a CreateModel request."""

PACKAGED_CONTAINERS = "PackagedContainers"
"""Member of a model's stored request. Its value is all containers, including the containers of the model packages that
the request names."""

MAX_CONTAINERS = 15
PORT = 8080
"""The port of a model's only container."""
FIRST_PORT = 8081
"""The port of the first of several containers. On AWS, the containers share one machine, so their ports must differ. No
container gets port 8080. Therefore, a container that ignores the variable with its port always fails, whatever its
position."""
FIRST_SAFE_PORT, SAFE_PORT_COUNT = 10_000, 1_000
"""The ports for a container's own use: the first port of the first container, and the number of ports per container."""


def list_containers(model: Mapping[str, Any]) -> Sequence[Container]:
    """Return the containers of a model's stored request, or of a CreateModel request."""
    if PACKAGED_CONTAINERS in model:
        packaged_containers: Sequence[Container] = model[PACKAGED_CONTAINERS]
        return packaged_containers
    return [model["PrimaryContainer"]] if "PrimaryContainer" in model else model.get("Containers", [])


def uses_direct_mode(model: Mapping[str, Any]) -> bool:
    """Return whether each request names its container. Otherwise, all containers process each request, one after the
    other."""
    config = model.get("InferenceExecutionConfig", {})
    return "PrimaryContainer" not in model and config.get("Mode") == "Direct"


def refuse_direct_mode(model: Mapping[str, Any], feature: str) -> None:
    """Raise ValidationError for a model with the Mode Direct: each request must name its container, but the requests of
    `feature` cannot name it."""
    if uses_direct_mode(model):
        raise ValidationError(
            f"{feature} does not support models with InferenceExecutionConfig Mode Direct, such as "
            f"{model['ModelName']}: use a model with the Mode Serial, or with one container."
        )


def list_names(model: Mapping[str, Any]) -> Sequence[str]:
    """Return the names of a model's containers in logs, errors and requests."""
    containers = list_containers(model)
    if len(containers) == 1 and not uses_direct_mode(model):
        return [PRIMARY]
    return [
        container.get("ContainerHostname") or f"container-{number}"
        for number, container in enumerate(containers, start=1)
    ]


def check_containers(containers: Sequence[Container], *, uses_direct_mode: bool) -> None:
    """Raise ValidationError if a container has no image, or the number, names or modes of the containers are invalid.

    Args:
        uses_direct_mode: whether each request names its container.
    """
    if not 1 <= len(containers) <= MAX_CONTAINERS:
        raise ValidationError(f"A model has 1 to {MAX_CONTAINERS} containers, not {len(containers)}.")
    if not all(container.get("Image") for container in containers):
        raise ValidationError("A container must have an Image, or a ModelPackageName whose package has an Image.")
    _check_multi_model_containers(sum(map(is_multi_model, containers)), uses_direct_mode=uses_direct_mode)
    names = [container["ContainerHostname"] for container in containers if container.get("ContainerHostname")]
    if 0 < len(names) < len(containers):
        raise ValidationError("If one container has a ContainerHostname, all containers must have one.")
    inputs.check_unique("ContainerHostnames", names)
    if uses_direct_mode and not 1 < len(containers) == len(names):
        raise ValidationError("Mode Direct requires several containers, and a ContainerHostname for each of them.")


def _check_multi_model_containers(count: int, *, uses_direct_mode: bool) -> None:
    if count > 1:
        raise ValidationError(
            f"A model has at most one container with Mode MultiModel, not {count}: set Mode SingleModel for the others."
        )
    if count and uses_direct_mode:
        raise ValidationError("Mode MultiModel is not supported together with Mode Direct: set Mode Serial.")


@dataclass(frozen=True)
class ContainerHost:
    """The host of one container on one instance."""

    name: str
    """The name of the host. If the model has one container, it is the instance's name. Sorted by name, the hosts of an
    instance have the order of the containers."""
    instance: str
    number: int
    """The container's number in the model, from 0."""
    stream_suffix: str
    """The end of the log stream's name, after the instance: empty, or the container's name."""
    port: int
    variables: Mapping[str, str]
    """The variables with the container's ports. The only container of a model gets no such variables."""


def list_hosts(model: Mapping[str, Any], instances: Sequence[str]) -> Sequence[ContainerHost]:
    """Return the hosts of a model's containers on some instances."""
    names = list_names(model)
    if len(names) == 1:
        return [
            ContainerHost(instance, instance, number=0, stream_suffix="", port=PORT, variables={})
            for instance in instances
        ]
    return [_make_host(instance, number, name) for instance in instances for number, name in enumerate(names)]


def _make_host(instance: str, number: int, name: str) -> ContainerHost:
    port, first_safe_port = FIRST_PORT + number, FIRST_SAFE_PORT + number * SAFE_PORT_COUNT
    variables = {
        BIND_TO_PORT_VARIABLE: str(port),
        "SAGEMAKER_SAFE_PORT_RANGE": f"{first_safe_port}-{first_safe_port + SAFE_PORT_COUNT - 1}",
    }
    return ContainerHost(
        f"{instance}-{number + 1:02}", instance, number, stream_suffix=f"/{name}", port=port, variables=variables
    )
