"""Requests that create, update and delete endpoints and their configurations.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpoint.html and API_CreateEndpointConfig.html
"""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.resources.endpoints import asynchronous, deployments
from microjobs_orchestrator.local.resources.endpoints.deployments import Deployment
from microjobs_orchestrator.local.resources.endpoints.endpoint import DEPLOYMENT, NEXT, Endpoint, forget
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT, ENDPOINT_CONFIG
from microjobs_orchestrator.local.resources.models import model as models
from microjobs_orchestrator.local.resources.records import add_resource
from microjobs_orchestrator.local.state import Record


def create_config(context: Context, request: Mapping[str, Any]) -> Record:
    """Check a CreateEndpointConfig request and add the configuration.

    Raises:
        ValidationError: a model or a bucket does not exist, two variants have the same name, or a configuration of
            that name exists.
    """
    variants = request["ProductionVariants"]
    names = [variant["VariantName"] for variant in variants]
    if len(set(names)) < len(names):
        raise ValidationError(f"Variant names must be unique: {', '.join(names)}.")
    for variant in variants:
        models.find(context, variant["ModelName"])
    if "AsyncInferenceConfig" in request:
        asynchronous.check(context, request["AsyncInferenceConfig"])
    defaults = {"InitialInstanceCount": 1, "InitialVariantWeight": 1.0}
    variants = [{**defaults, **variant} for variant in variants]
    return add_resource(context, ENDPOINT_CONFIG, request, members={"ProductionVariants": variants})


def create(context: Context, request: Mapping[str, Any]) -> Record:
    """Check a CreateEndpoint request and add the endpoint, which does not run yet.

    Raises:
        ValidationError: the configuration or one of its models does not exist, or an endpoint of that name exists.
    """
    deployment = deployments.deploy(context, request["EndpointConfigName"])
    members = deployments.describe(deployment, serves=False)
    return add_resource(context, ENDPOINT, request, members=members, internal={DEPLOYMENT: deployment})


def update(context: Context, registry: Registry, request: Mapping[str, Any]) -> Record:
    """Update an endpoint to another configuration. The old deployment serves until the new one does.

    Raises:
        ValidationError: the configuration or one of its models does not exist, or the endpoint is not InService.
    """
    following = deployments.deploy(context, request["EndpointConfigName"])
    if request.get("RetainAllVariantProperties", False):
        excluded = [item["VariantPropertyType"] for item in request.get("ExcludeRetainedVariantProperties", [])]
        following = deployments.retain(following, _serving(context, request["EndpointName"]), excluded)
    return _follow(context, registry, request["EndpointName"], following)


def reweigh(context: Context, registry: Registry, request: Mapping[str, Any]) -> Record:
    """Change the weights and counts of an endpoint's variants. The replicas keep running.

    Raises:
        ValidationError: a variant does not exist, or the endpoint is not InService.
    """
    before, wanted = _serving(context, request["EndpointName"]), request["DesiredWeightsAndCapacities"]
    return _follow(context, registry, request["EndpointName"], deployments.change(before, wanted))


def _serving(context: Context, name: str) -> Deployment:
    """Return the deployment that an endpoint serves."""
    record = context.state.get(ENDPOINT.arn_type, name)
    if record is None or record.status != "InService":
        raise _not_in_service(context, name, record)
    deployment: Deployment = record.internal[DEPLOYMENT]
    return deployment


def _follow(context: Context, registry: Registry, name: str, following: Deployment) -> Record:
    changes, internal = {"EndpointStatus": "Updating"}, {NEXT: following}
    updated = context.state.update(
        ENDPOINT.arn_type, name, changes, "Updating", internal=internal, only_if=("InService",)
    )
    if updated is None:
        raise _not_in_service(context, name, context.state.get(ENDPOINT.arn_type, name))
    if isinstance(endpoint := registry.find(f"{ENDPOINT.arn_type}/{name}"), Endpoint):
        endpoint.wake()
    return updated


def _not_in_service(context: Context, name: str, found: Record | None) -> ValidationError:
    own_arn, status = (
        format_arn(f"{ENDPOINT.arn_type}/{name}", context.settings.region),
        found.status if found else "not there",
    )
    return ValidationError(f'Cannot update endpoint "{own_arn}", which is {status}: it must be InService.')


def delete(context: Context, registry: Registry, name: str) -> None:
    """Delete an endpoint in any status. Its record is deleted when nothing is left of it."""
    context.state.update(ENDPOINT.arn_type, name, {"EndpointStatus": "Deleting"}, "Deleting")
    if not registry.stop(f"{ENDPOINT.arn_type}/{name}"):  # it failed before this server started
        forget(context, name)
