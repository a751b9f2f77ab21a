"""Requests that create, update and delete endpoints and their configurations.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpointConfig.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpoint.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpoint.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpointWeightsAndCapacities.html
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
    """Update an endpoint to another configuration. The old deployment serves until the new deployment serves.

    Raises:
        ValidationError: the configuration or one of its models does not exist, or the endpoint is not InService.
    """
    new_deployment = deployments.deploy(context, request["EndpointConfigName"])
    if request.get("RetainAllVariantProperties", False):
        excluded = [item["VariantPropertyType"] for item in request.get("ExcludeRetainedVariantProperties", [])]
        new_deployment = deployments.retain(
            new_deployment, _current_deployment(context, request["EndpointName"]), excluded
        )
    return _start_update(context, registry, request["EndpointName"], new_deployment)


def reweigh(context: Context, registry: Registry, request: Mapping[str, Any]) -> Record:
    """Change the weights and counts of an endpoint's variants. The replicas keep running.

    Raises:
        ValidationError: a variant does not exist, or the endpoint is not InService.
    """
    current = _current_deployment(context, request["EndpointName"])
    changed = deployments.change(current, request["DesiredWeightsAndCapacities"])
    return _start_update(context, registry, request["EndpointName"], changed)


def _current_deployment(context: Context, name: str) -> Deployment:
    """Return the deployment of an endpoint that is InService.

    Raises:
        ValidationError: the endpoint is not InService.
    """
    record = context.state.get(ENDPOINT.arn_type, name)
    if record is None or record.status != "InService":
        raise _not_in_service_error(context, name, record)
    deployment: Deployment = record.internal[DEPLOYMENT]
    return deployment


def _start_update(context: Context, registry: Registry, name: str, new_deployment: Deployment) -> Record:
    """Store the next deployment of an endpoint, and wake the endpoint's thread.

    Raises:
        ValidationError: the endpoint is not InService.
    """
    changes, internal = {"EndpointStatus": "Updating"}, {NEXT: new_deployment}
    updated = context.state.update(
        ENDPOINT.arn_type, name, changes, "Updating", internal=internal, only_if=("InService",)
    )
    if updated is None:
        raise _not_in_service_error(context, name, context.state.get(ENDPOINT.arn_type, name))
    if isinstance(endpoint := registry.find(f"{ENDPOINT.arn_type}/{name}"), Endpoint):
        endpoint.wake()
    return updated


def _not_in_service_error(context: Context, name: str, record: Record | None) -> ValidationError:
    arn = format_arn(f"{ENDPOINT.arn_type}/{name}", context.settings.region)
    status = record.status if record else "not there"
    return ValidationError(f'Cannot update endpoint "{arn}", which is {status}: it must be InService.')


def delete(context: Context, registry: Registry, name: str) -> None:
    """Delete an endpoint in any status. The endpoint's thread deletes the record after the replicas have ended."""
    context.state.update(ENDPOINT.arn_type, name, {"EndpointStatus": "Deleting"}, "Deleting")
    if not registry.stop(f"{ENDPOINT.arn_type}/{name}"):  # it has no thread: it failed before this server started
        forget(context, name)
