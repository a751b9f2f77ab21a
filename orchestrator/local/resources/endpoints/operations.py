"""The operations on endpoints and their configurations.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpointConfig.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpoint.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpoint.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpointWeightsAndCapacities.html
"""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.registry import Runnable
from microjobs_orchestrator.local.resources.endpoints import components, config_checks, deployments, serverless
from microjobs_orchestrator.local.resources.endpoints.deployer import DEPLOYMENT
from microjobs_orchestrator.local.resources.endpoints.deployment_operations import DeploymentOperations
from microjobs_orchestrator.local.resources.endpoints.deployments import MEMBERS_BY_PROPERTY, Deployment
from microjobs_orchestrator.local.resources.endpoints.endpoint import Endpoint, delete_record
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT, ENDPOINT_CONFIG
from microjobs_orchestrator.local.resources.endpoints.update_policies import check_deployment_config
from microjobs_orchestrator.local.resources.operations import (
    Handler,
    Operations,
    Request,
    Response,
    add_resource,
)
from microjobs_orchestrator.local.state import Record


class EndpointConfigOperations(Operations):
    kind = ENDPOINT_CONFIG

    def add(self, request: Request) -> Record:
        variants = {
            member: [{**deployments.make_defaults(variant), **variant} for variant in request[member]]
            for member in deployments.VARIANT_LIST_MEMBERS.values()
            if member in request
        }
        config_checks.check(self.context, request)
        return add_resource(self.context, ENDPOINT_CONFIG, request, members=variants)


class EndpointOperations(DeploymentOperations):
    kind = ENDPOINT

    def add(self, request: Request) -> Record:
        deployment = deployments.make_deployment(self.context, request["EndpointConfigName"])
        config = request.get("DeploymentConfig")
        check_deployment_config(self.context, config or {}, deployments.get_largest_instance_count(deployment))
        members = {**deployments.describe(deployment), "LastDeploymentConfig": config}
        return add_resource(self.context, ENDPOINT, request, members=members, internal={DEPLOYMENT: deployment})

    def make_runnable(self, record: Record) -> Runnable:
        return Endpoint(self.context, record)

    def list_additional_handlers(self) -> Mapping[str, Handler]:
        return {"UpdateEndpoint": self.update, "UpdateEndpointWeightsAndCapacities": self.update_weights}

    def update(self, request: Request) -> Response:
        """Update an endpoint to another configuration, in the steps of DeploymentConfig."""
        record = self.find_in_service(request)
        deployment = deployments.make_deployment(self.context, request["EndpointConfigName"])
        config_checks.check_update(record.internal[DEPLOYMENT], deployment)
        components.check_update(self.context, record, deployment)
        if request.get("RetainAllVariantProperties", False):
            excluded_properties = [
                item["VariantPropertyType"] for item in request.get("ExcludeRetainedVariantProperties", [])
            ]
            retained_names = [member for name, member in MEMBERS_BY_PROPERTY.items() if name not in excluded_properties]
            variants = deployments.get_variants_by_name(record.internal[DEPLOYMENT])
            retained_members = {
                variant: {name: members[name] for name in retained_names if name in members}
                for variant, members in variants.items()
            }
            deployment = deployments.change_variants(deployment, retained_members)
        config = request.get("DeploymentConfig")
        if request.get("RetainDeploymentConfig", False):
            config = record.description.get("LastDeploymentConfig")
        check_deployment_config(self.context, config or {}, deployments.get_largest_instance_count(deployment))
        summary = deployments.describe_pending(deployment)
        members = {"PendingDeploymentSummary": summary, "LastDeploymentConfig": config}
        return self.start_update(record, deployment, config, **members)

    def update_weights(self, request: Request) -> Response:
        """Change the weights and counts of an endpoint's variants. Running instances are kept, up to the new counts."""
        record = self.find_in_service(request)
        deployment: Deployment = record.internal[DEPLOYMENT]
        items, variants = request["DesiredWeightsAndCapacities"], deployments.get_variants_by_name(deployment)
        if unknown_names := [item["VariantName"] for item in items if item["VariantName"] not in variants]:
            raise ValidationError(
                f"Could not find variant(s) {', '.join(unknown_names)}; the endpoint has: {', '.join(variants)}."
            )
        changes = {item["VariantName"]: _read_changes(variants[item["VariantName"]], item) for item in items}
        deployment = deployments.change_variants(deployment, changes)
        return self.start_update(
            record, deployment, None, **deployments.describe_desired_variants(record.description, deployment)
        )

    def check_deletion(self, record: Record) -> None:
        components.check_deletion(self.context, record)

    def delete_record(self, name: str) -> None:
        delete_record(self.context, name)


def _read_changes(variant: Mapping[str, Any], item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the changed members of a variant for an item of DesiredWeightsAndCapacities."""
    if serverless.SERVERLESS_CONFIG in variant and "DesiredInstanceCount" in item:
        message = f"Variant {variant['VariantName']} is serverless: use ServerlessUpdateConfig."
        raise ValidationError(message)
    changes = {member: item[name] for name, member in MEMBERS_BY_PROPERTY.items() if name in item}
    update = item.get("ServerlessUpdateConfig")
    return {**changes, **(serverless.change_config(variant, update) if update else {})}
