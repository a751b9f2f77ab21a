"""The files of a model, and the hosts that serve it for endpoints and batch transform.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from microjobs.contract import DEFAULT_ROOT
from microjobs_orchestrator.local import instances as instance_types
from microjobs_orchestrator.local.lifecycle import inputs
from microjobs_orchestrator.local.lifecycle.attempt import Attempt
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.job import LAYOUT
from microjobs_orchestrator.local.logs import LogStream
from microjobs_orchestrator.local.resources.models.client import PRIMARY
from microjobs_orchestrator.local.resources.models.containers import (
    Container,
    ContainerHost,
    list_containers,
    list_hosts,
)
from microjobs_orchestrator.local.resources.models.model_data import (
    extract,
    find_data,
    is_multi_model,
    list_additional_data,
)
from microjobs_orchestrator.local.runtimes.base import CannotRunError, HostPlan, Input, Plan

ADDITIONAL_DATA_FOLDER = f"{DEFAULT_ROOT}/additional-model-data-sources"
"""The folder of the additional model data in containers, with one folder per channel."""
MULTI_MODEL_VARIABLES = {"SAGEMAKER_MULTI_MODEL": "true"}
STARTUP_TIMEOUT = 240
"""Seconds until `/ping` must answer, unless the variant has another limit."""


class UnhealthyError(CannotRunError):
    """A host ended, or its `/ping` did not answer 200 in time."""

    def __init__(self, message: str, container: str = PRIMARY) -> None:
        super().__init__(message)
        self.container = container
        """The name of the container in its model."""


class StoppedError(Exception):
    """The job, the replica or the MLflow server is being stopped."""


def prepare_model_data(context: Context, container: Container, folder: Path) -> Path:
    """Make a new folder with a container's model data: an extracted archive, links to objects, or nothing.

    Raise ValidationError if the data does not exist any more, or if its ETag differs from that in the request or the
    model package. Raise CannotRunError if the archive cannot be extracted.
    """
    data = find_data(context.store, container)
    if data.is_archive:
        extract(data.objects[0][1], folder)
    else:
        inputs.link_objects(data.objects, folder)
    find_data(context.store, container)  # the data may have changed since `find_data` checked its ETag above
    return folder


def _prepare_inputs(
    context: Context, container: Container, model_folder: Path, additional_folder: Path
) -> Sequence[Input]:
    """Make and return the folders that a container reads: its model data, and its additional model data."""
    sources = list_additional_data(container)
    return [
        Input(str(LAYOUT.model), prepare_model_data(context, container, model_folder)),
        *(
            Input(f"{ADDITIONAL_DATA_FOLDER}/{name}", prepare_model_data(context, source, additional_folder / name))
            for name, source in sources.items()
        ),
    ]


def make_attempt(
    context: Context,
    model: Mapping[str, Any],
    plan_name: str,
    instances: Sequence[str],
    instance_type: str,
    open_stream: Callable[[str, str], LogStream],
    environment: Mapping[str, str] | None = None,
) -> Attempt:
    """Return an attempt whose hosts serve a model: one host per container of the model on each instance.

    Args:
        model: the CreateModel request.
        open_stream: returns a log stream of an instance. Its second argument is the end of the stream's name, and may
            be empty.
        environment: variables of all containers; they replace variables of the same names in the model.
    """
    containers, hosts = list_containers(model), list_hosts(model, instances)
    is_isolated = bool(model.get("EnableNetworkIsolation", False))
    images = [context.resolve_image(container["Image"]) for container in containers]

    def make_plan(folder: Path) -> Plan:
        container_inputs = [
            _prepare_inputs(context, container, folder / f"model-{number}", folder / f"additional-{number}")
            for number, container in enumerate(containers, 1)
        ]
        access = {} if is_isolated else context.make_access_variables()
        variables = [{**access, **_make_variables(container), **(environment or {})} for container in containers]
        host_plans = (
            make_host_plan(host, folder / "files" / host.name, container_inputs[host.number], variables[host.number])
            for host in hosts
        )
        return Plan(plan_name, tuple(host_plans), is_isolated)

    def make_host_plan(
        host: ContainerHost, files: Path, host_inputs: Sequence[Input], variables: Mapping[str, str]
    ) -> HostPlan:
        files.mkdir(parents=True)
        if is_multi_model(containers[host.number]):
            (files / "models").mkdir()
        return HostPlan(
            name=host.name,
            image=images[host.number],
            files=files,
            inputs=tuple(host_inputs),
            arguments=("serve",),
            environment={**variables, **host.variables},
            default_variables={} if is_isolated else context.make_package_variables(),
            limits=context.find_host_limits(instance_type),
            has_gpus=instance_types.has_gpus(instance_type),
            port=host.port,
        )

    def open_host_stream(name: str) -> LogStream:
        """Return the log stream of a host, or the stream of the first host if the name is unknown."""
        host = next((host for host in hosts if host.name == name), hosts[0])
        return open_stream(host.instance, host.stream_suffix)

    image, *other_images = (container["Image"] for container in containers)
    return Attempt(plan_name, image, make_plan, open_host_stream, other_images=tuple(other_images))


def _make_variables(container: Container) -> Mapping[str, str]:
    """Return the variables that a container's definition determines."""
    return {**container.get("Environment", {}), **(MULTI_MODEL_VARIABLES if is_multi_model(container) else {})}
