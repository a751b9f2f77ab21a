"""Makes the replica of a variant: its kind follows from the variant and its model."""

from collections.abc import Callable, Mapping
from typing import Any

from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints.container_replica import ContainerReplica
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT
from microjobs_orchestrator.local.resources.endpoints.replica import Replica
from microjobs_orchestrator.local.resources.models import serving


def get_plan_name(endpoint: str, variant: Mapping[str, Any]) -> str:
    """Return the name of the plan of a variant's replica."""
    return f"{ENDPOINT.arn_type}/{endpoint}/{variant['VariantName']}/{variant['InstanceId']}"


def make_replica(context: Context, endpoint: str, variant: Mapping[str, Any], on_change: Callable[[], None]) -> Replica:
    """Return the replica of a deployment's variant. Its methods state when `on_change` is called."""
    name, instance_id = variant["VariantName"], variant["InstanceId"]
    attempt = serving.make_attempt(
        context,
        variant["Model"],
        get_plan_name(endpoint, variant),
        [instance_id],
        variant["InstanceType"],
        lambda _: context.logs.create(ENDPOINT.log_group(endpoint), f"{name}/{instance_id}"),
    )
    timeout = variant.get("ContainerStartupHealthCheckTimeoutInSeconds", serving.STARTUP_TIMEOUT)
    return ContainerReplica(context, attempt, name, instance_id, timeout, on_change)
