"""Containers that serve a model, for endpoints and batch transform.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from microjobs_orchestrator.local import instances
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.job import LAYOUT
from microjobs_orchestrator.local.resources.models import model as models
from microjobs_orchestrator.local.resources.models.client import Client
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host, HostPlan, Input

PORT = 8080
STARTUP_TIMEOUT = 240
"""Seconds until `/ping` must answer, unless the variant has another limit."""
FIRST_PING_DELAY, MAX_PING_DELAY = 0.1, 1.0


class UnhealthyError(CannotRunError):
    """A container ended, or its `/ping` did not answer 200 in time."""


class StoppedError(Exception):
    """The container is not needed any more."""


def image(context: Context, model: Mapping[str, Any]) -> str:
    """Return the local name of a model's image."""
    return context.image(models.container(model)["Image"])


def host_plan(
    context: Context,
    model: Mapping[str, Any],
    name: str,
    folder: Path,
    data: Path,
    instance_type: str,
    environment: Mapping[str, str] | None = None,
) -> HostPlan:
    """Return the plan of a host that serves a model.

    Args:
        model: the request that made it.
        folder: a new one, for the host's own files.
        data: the model's files, as `models.fetch` makes them.
        environment: replaces variables of the model.
    """
    folder.mkdir(parents=True)
    access = {} if is_isolated(model) else context.access()
    return HostPlan(
        name=name,
        image=image(context, model),
        files=folder,
        inputs=(Input(str(LAYOUT.model), data),),
        arguments=("serve",),
        environment={
            **access,
            **models.container(model).get("Environment", {}),
            **(environment or {}),
        },
        limits=context.limits(instance_type),
        gpus=instances.has_gpus(instance_type),
        port=PORT,
    )


def is_isolated(model: Mapping[str, Any]) -> bool:
    return bool(model.get("EnableNetworkIsolation", False))


def wait_until_healthy(
    host: Host, seconds: float, stopping: threading.Event, ended: Callable[[], bool] = lambda: False
) -> Client:
    """Request `/ping` until it answers 200, with increasing delays: containers report their health in no other way.

    Args:
        stopping: set when the container is not needed any more.
        ended: returns whether the host has ended by itself.

    Raises:
        UnhealthyError: it has ended, or there was no 200 within `seconds`.
        StoppedError: `stopping` was set.
    """
    deadline, wait = time.monotonic() + seconds, FIRST_PING_DELAY
    while time.monotonic() < deadline:
        if ended():
            raise UnhealthyError("It ended before that.")
        if (client := _answering(host)) is not None:
            return client
        if stopping.wait(wait):
            raise StoppedError
        wait = min(MAX_PING_DELAY, wait * 1.2)
    raise UnhealthyError(f"GET /ping did not answer 200 within {seconds:g} s.")


def _answering(host: Host) -> Client | None:
    client = Client(host.connect)
    if client.healthy():
        return client
    client.close()
    return None
