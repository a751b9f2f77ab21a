"""Makes the replica of a variant. Its type depends on the variant and on the model."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from microjobs_orchestrator.local.lifecycle.attempt import Attempt, limit_hosts
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.usage import Meter
from microjobs_orchestrator.local.resources.endpoints import serverless
from microjobs_orchestrator.local.resources.endpoints.container_replica import ContainerReplica
from microjobs_orchestrator.local.resources.endpoints.invocation_metrics import INSTANCE_NAMESPACE, record_setup
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT
from microjobs_orchestrator.local.resources.endpoints.multi_model_replica import DEFAULT_VOLUME_GB, MultiModelReplica
from microjobs_orchestrator.local.resources.endpoints.replica import Replica
from microjobs_orchestrator.local.resources.endpoints.serverless import ServerlessSettings
from microjobs_orchestrator.local.resources.endpoints.serverless_replica import ServerlessReplica
from microjobs_orchestrator.local.resources.models import serving
from microjobs_orchestrator.local.resources.models.containers import list_containers
from microjobs_orchestrator.local.resources.models.model_data import is_multi_model
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Plan

DOWNLOAD_TIMEOUT_MEMBER = "ModelDataDownloadTimeoutInSeconds"


def get_plan_name(endpoint: str, variant: Mapping[str, Any]) -> str:
    """Return the name of the plan of a variant's replica."""
    return f"{ENDPOINT.arn_type}/{endpoint}/{variant['VariantName']}/{variant['InstanceId']}"


def make_replica(
    context: Context, endpoint: str, variant: Mapping[str, Any], on_change: Callable[[], None], *, may_be_idle: bool
) -> Replica:
    """Return the replica of a deployment's variant. The replica's class states when it calls `on_change`.

    Args:
        may_be_idle: whether the replica may start without hosts, because it was in service before the server restarted.
    """
    make_container_replica = partial(_make_container_replica, context, endpoint, variant, on_change)
    if serverless.SERVERLESS_CONFIG in variant:
        idle_seconds = context.settings.serverless_idle_seconds
        on_restart = partial(record_setup, context.metrics, endpoint, variant["VariantName"])
        return ServerlessReplica(
            make_container_replica,
            ServerlessSettings.read(variant),
            idle_seconds,
            on_change,
            on_restart,
            was_in_service=may_be_idle,
        )
    return make_container_replica()


def _make_container_replica(
    context: Context, endpoint: str, variant: Mapping[str, Any], on_change: Callable[[], None]
) -> Replica:
    name, instance_id = variant["VariantName"], variant["InstanceId"]
    attempt = serving.make_attempt(
        context,
        variant["Model"],
        get_plan_name(endpoint, variant),
        [instance_id],
        variant.get("InstanceType", ""),
        lambda instance, suffix: context.logs.create(ENDPOINT.log_group(endpoint), f"{name}/{instance}{suffix}"),
    )
    default_timeout = serverless.STARTUP_TIMEOUT if serverless.SERVERLESS_CONFIG in variant else serving.STARTUP_TIMEOUT
    timeout = variant.get("ContainerStartupHealthCheckTimeoutInSeconds", default_timeout)
    attempt = replace(attempt, meter=_make_meter(context, endpoint, name))
    attempt = limit_hosts(attempt, serverless.make_limits(variant))
    attempt = _limit_download(attempt, variant.get(DOWNLOAD_TIMEOUT_MEMBER, math.inf))
    replica = ContainerReplica(context, variant["Model"], attempt, name, instance_id, timeout, on_change)
    if not any(map(is_multi_model, list_containers(variant["Model"]))):
        return replica
    return MultiModelReplica(context, replica, variant["Model"], variant.get("VolumeSizeInGB", DEFAULT_VOLUME_GB))


def _limit_download(attempt: Attempt, seconds: float) -> Attempt:
    """Return an attempt that fails if the extraction of the model data takes more than `seconds`."""

    def make_plan(folder: Path) -> Plan:
        start_time = time.monotonic()
        plan = attempt.make_plan(folder)
        if (elapsed := time.monotonic() - start_time) > seconds:
            limit = f"{seconds:g} s ({DOWNLOAD_TIMEOUT_MEMBER})"
            raise CannotRunError(f"The model data took {elapsed:.1f} s to extract, longer than {limit}.")
        return plan

    return dataclasses.replace(attempt, make_plan=make_plan)


def configure_replica(replica: Replica, variant: Mapping[str, Any]) -> None:
    """Apply changed properties of a variant to the replica that serves it."""
    if isinstance(replica, ServerlessReplica):
        replica.configure(ServerlessSettings.read(variant))


def _make_meter(context: Context, endpoint: str, variant: str) -> Meter:
    dimensions = {"EndpointName": endpoint, "VariantName": variant}
    return Meter(context.metrics, INSTANCE_NAMESPACE, lambda _: dimensions, context.home.root)
