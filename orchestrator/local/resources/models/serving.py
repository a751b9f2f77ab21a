"""Hosts that serve a model, for endpoints and batch transform.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from microjobs_orchestrator.local import instances
from microjobs_orchestrator.local.lifecycle.attempt import Attempt
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.job import LAYOUT
from microjobs_orchestrator.local.logs import LogStream
from microjobs_orchestrator.local.resources.models.client import Client
from microjobs_orchestrator.local.resources.models.model import fetch, get_container
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host, HostPlan, Input, Plan

PORT = 8080
STARTUP_TIMEOUT = 240
"""Seconds until `/ping` must answer, unless the variant has another limit."""
FIRST_PING_DELAY, MAX_PING_DELAY = 0.1, 1.0


class UnhealthyError(CannotRunError):
    """A host ended, or its `/ping` did not answer 200 in time."""


class StoppedError(Exception):
    """The job or the endpoint is being stopped."""


def make_attempt(
    context: Context,
    model: Mapping[str, Any],
    plan_name: str,
    hosts: Sequence[str],
    instance_type: str,
    open_stream: Callable[[str], LogStream],
    environment: Mapping[str, str] | None = None,
) -> Attempt:
    """Return an attempt whose hosts serve a CreateModel request. `environment` extends or replaces its variables."""
    container, is_isolated = get_container(model), bool(model.get("EnableNetworkIsolation", False))
    access = {} if is_isolated else context.access()
    variables = {**access, **container.get("Environment", {}), **(environment or {})}
    image = context.image(container["Image"])

    def make_plan(folder: Path) -> Plan:
        data = fetch(context, container, folder / "model")
        return Plan(plan_name, tuple(make_host(name, folder / "files" / name, data) for name in hosts), is_isolated)

    def make_host(name: str, files: Path, data: Path) -> HostPlan:
        files.mkdir(parents=True)
        return HostPlan(
            name=name,
            image=image,
            files=files,
            inputs=(Input(str(LAYOUT.model), data),),
            arguments=("serve",),
            environment=variables,
            limits=context.limits(instance_type),
            gpus=instances.has_gpus(instance_type),
            port=PORT,
        )

    return Attempt(plan_name, image, make_plan, open_stream)


def wait_until_healthy(
    host: Host, seconds: float, stopping: threading.Event, has_ended: Callable[[], bool] = lambda: False
) -> Client:
    """Request `/ping` until it answers 200, with increasing delays; return a client of the host.

    Raise UnhealthyError if it did not answer 200 within `seconds` or the host has ended, StoppedError after `stopping`.
    """
    deadline, delay = time.monotonic() + seconds, FIRST_PING_DELAY
    while time.monotonic() < deadline:
        if has_ended():
            raise UnhealthyError("It ended before that.")
        client = Client(host.connect)
        if client.is_healthy():
            return client
        client.close()
        if stopping.wait(delay):
            raise StoppedError
        delay = min(MAX_PING_DELAY, delay * 1.2)
    raise UnhealthyError(f"GET /ping did not answer 200 within {seconds:g} s.")
