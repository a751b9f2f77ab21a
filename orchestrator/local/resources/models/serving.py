"""The container and the files of a model, and the hosts that serve it for endpoints and batch transform.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from microjobs_orchestrator.local import instances
from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle import inputs
from microjobs_orchestrator.local.lifecycle.attempt import Attempt
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.job import LAYOUT
from microjobs_orchestrator.local.logs import LogStream
from microjobs_orchestrator.local.resources.models.client import Client
from microjobs_orchestrator.local.resources.models.model_data import extract, find_data, is_multi_model
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host, HostPlan, Input, Plan

Container = Mapping[str, Any]
"""A ContainerDefinition of a CreateModel request."""

PACKAGED_CONTAINER = "PackagedContainer"
"""Member of a model's stored request: the container of the model package that the request names."""

PORT = 8080
STARTUP_TIMEOUT = 240
"""Seconds until `/ping` must answer, unless the variant has another limit."""
FIRST_PING_DELAY, MAX_PING_DELAY = 0.1, 1.0


class UnhealthyError(CannotRunError):
    """A host ended, or its `/ping` did not answer 200 in time."""


class StoppedError(Exception):
    """The job or the endpoint is being stopped."""


def get_container(model: Mapping[str, Any]) -> Container:
    """Return the only container of a model's stored request, or of a CreateModel request.

    Raise ValidationError if the request has no container, or several.
    """
    if PACKAGED_CONTAINER in model:
        packaged: Container = model[PACKAGED_CONTAINER]
        return packaged
    primary = [model["PrimaryContainer"]] if "PrimaryContainer" in model else []
    containers: list[Container] = [*primary, *model.get("Containers", [])]
    if len(containers) != 1:
        raise ValidationError(f"A model must have one container, not {len(containers)}: use only PrimaryContainer.")
    return containers[0]


def prepare_model_data(context: Context, container: Container, folder: Path) -> Path:
    """Make a new folder with a container's model data: an extracted archive, links to objects, or nothing.

    Raise ValidationError if the data does not exist any more or has changed, and CannotRunError if the archive cannot
    be extracted.
    """
    data = find_data(context.store, container)
    if data.is_archive:
        extract(data.objects[0][1], folder)
    else:
        inputs.link_objects(data.objects, folder)
    find_data(context.store, container)  # the data may have changed since the first check of the ETag
    return folder


def make_attempt(
    context: Context,
    model: Mapping[str, Any],
    plan_name: str,
    hosts: Sequence[str],
    instance_type: str,
    open_stream: Callable[[str], LogStream],
    environment: Mapping[str, str] | None = None,
) -> Attempt:
    """Return an attempt to serve a CreateModel request. `environment` extends or replaces the container's variables."""
    container, is_isolated = get_container(model), bool(model.get("EnableNetworkIsolation", False))
    image = context.resolve_image(container["Image"])

    def make_plan(folder: Path) -> Plan:
        data = prepare_model_data(context, container, folder / "model")
        access = {} if is_isolated else context.make_access_variables()
        variables = {**access, **container.get("Environment", {}), **(environment or {})}
        host_plans = (make_host(name, folder / "files" / name, data, variables) for name in hosts)
        return Plan(plan_name, tuple(host_plans), is_isolated)

    def make_host(name: str, files: Path, data: Path, variables: Mapping[str, str]) -> HostPlan:
        files.mkdir(parents=True)
        if is_multi_model(container):
            (files / "models").mkdir()
        return HostPlan(
            name=name,
            image=image,
            files=files,
            inputs=(Input(str(LAYOUT.model), data),),
            arguments=("serve",),
            environment=variables,
            defaults={} if is_isolated else context.make_package_variables(),
            limits=context.find_host_limits(instance_type),
            gpus=instances.has_gpus(instance_type),
            port=PORT,
        )

    return Attempt(plan_name, container["Image"], make_plan, open_stream)


def wait_until_healthy(
    host: Host, seconds: float, stopping: threading.Event, has_ended: Callable[[], bool] = lambda: False
) -> Client:
    """Request `/ping` until it answers 200, with increasing delays; return a client of the host.

    Raise UnhealthyError if the host has ended or does not answer 200 within `seconds`. Raise StoppedError if `stopping`
    is set.
    """
    deadline, delay = time.monotonic() + seconds, FIRST_PING_DELAY
    while time.monotonic() < deadline:
        if has_ended():
            raise UnhealthyError("The container ended before GET /ping answered 200.")
        client = Client(host.connect)
        if client.is_healthy():
            return client
        client.close()
        if stopping.wait(delay):
            raise StoppedError
        delay = min(MAX_PING_DELAY, delay * 1.2)
    raise UnhealthyError(f"GET /ping did not answer 200 within {seconds:g} s.")
