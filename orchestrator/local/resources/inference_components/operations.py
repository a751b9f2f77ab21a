"""The operations on inference components.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateInferenceComponent.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateInferenceComponent.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateInferenceComponentRuntimeConfig.html
"""

from collections.abc import Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.registry import Runnable
from microjobs_orchestrator.local.resources.endpoints.deployer import DEPLOYMENT
from microjobs_orchestrator.local.resources.endpoints.deployment_operations import (
    DeploymentConfig,
    DeploymentOperations,
)
from microjobs_orchestrator.local.resources.endpoints.deployments import Deployment
from microjobs_orchestrator.local.resources.endpoints.endpoint import Endpoint
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT
from microjobs_orchestrator.local.resources.endpoints.update_policies import check_deployment_config
from microjobs_orchestrator.local.resources.inference_components import specifications
from microjobs_orchestrator.local.resources.inference_components.component import InferenceComponent
from microjobs_orchestrator.local.resources.inference_components.kinds import INFERENCE_COMPONENT
from microjobs_orchestrator.local.resources.inference_components.specifications import BASE_COMPONENT, Specification
from microjobs_orchestrator.local.resources.listing import list_resources
from microjobs_orchestrator.local.resources.operations import (
    Handler,
    Request,
    Response,
    add_resource,
    find_resource,
)
from microjobs_orchestrator.local.state import Owner, Query, Record


class InferenceComponentOperations(DeploymentOperations):
    kind = INFERENCE_COMPONENT

    def add(self, request: Request) -> Record:
        specification = request.get("Specification", {})
        if BASE_COMPONENT in specification:
            request = {**request, **self._derive_adapter_members(request)}
        if not {"VariantName", "Specification", "RuntimeConfig"} <= request.keys():
            raise ValidationError(
                "An inference component must have a VariantName, a Specification and a RuntimeConfig."
            )
        endpoint = find_resource(self.context, ENDPOINT, request["EndpointName"])
        variant = _find_variant(endpoint, request["VariantName"])
        copy_ids = specifications.make_copy_ids(request["RuntimeConfig"]["CopyCount"])
        deployment = self._make_deployment(specification, variant["InstanceType"], endpoint, copy_ids)
        members = {**specifications.describe(deployment, serving_count=0), "EndpointArn": endpoint.arn}
        owner = Owner(ENDPOINT.arn_type, endpoint.name)
        return add_resource(
            self.context,
            INFERENCE_COMPONENT,
            request,
            members=members,
            internal={DEPLOYMENT: deployment},
            owner=owner,
        )

    def _make_deployment(
        self, specification: Specification, instance_type: str, endpoint: Record, copy_ids: list[str]
    ) -> Deployment:
        """Check a specification, and return a deployment of it with one copy for each of the `copy_ids`."""
        specifications.check(specification)
        is_isolated = bool(endpoint.internal[DEPLOYMENT].get("EnableNetworkIsolation", False))
        model = specifications.find_model(self.context, specification, is_isolated=is_isolated)
        base = {"Base": specification[BASE_COMPONENT]} if BASE_COMPONENT in specification else {}
        return {
            "Model": model,
            "Specification": specification,
            "InstanceType": instance_type,
            "Copies": copy_ids,
            **base,
        }

    def _derive_adapter_members(self, request: Request) -> Mapping[str, Any]:
        """Return the members that an adapter's request lacks: VariantName, from the base component, and RuntimeConfig.

        Raise ValidationError if the request has a RuntimeConfig, or if the base component does not exist, is not in
        service on the same endpoint, or is an adapter itself.
        """
        base = find_resource(self.context, self.kind, request["Specification"][BASE_COMPONENT])
        if base.status != "InService" or base.request["EndpointName"] != request["EndpointName"]:
            raise ValidationError(
                f"The base component {base.name} is {base.status} on endpoint {base.request['EndpointName']}: it must "
                f"be InService on {request['EndpointName']}."
            )
        if "Base" in base.internal[DEPLOYMENT]:
            raise ValidationError(f"The base component {base.name} is an adapter itself.")
        if "RuntimeConfig" in request:
            raise ValidationError("An adapter has no RuntimeConfig: all copies of its base component load it.")
        return {"VariantName": base.description["VariantName"], "RuntimeConfig": {"CopyCount": 1}}

    def make_runnable(self, record: Record) -> Runnable:
        return InferenceComponent(self.context, record, self._find_running_component, self._find_endpoint)

    def _find_endpoint(self, name: str) -> Endpoint | None:
        endpoint = self.registry.find(f"{ENDPOINT.arn_type}/{name}")
        return endpoint if isinstance(endpoint, Endpoint) else None

    def _find_running_component(self, name: str) -> InferenceComponent | None:
        component = self.registry.find(f"{self.kind.arn_type}/{name}")
        return component if isinstance(component, InferenceComponent) else None

    def list_additional_handlers(self) -> Mapping[str, Handler]:
        return {
            "UpdateInferenceComponent": self.update,
            "UpdateInferenceComponentRuntimeConfig": self.update_runtime_config,
        }

    def list(self, request: Request) -> Response:
        filters: dict[str, Any] = {}
        if "EndpointNameEquals" in request:
            filters["owner"] = Owner(ENDPOINT.arn_type, request["EndpointNameEquals"])
        response = list_resources(self.context.state, self.kind, request, self.compute_members, **filters)
        if (variant := request.get("VariantNameEquals")) is not None:
            response["InferenceComponents"] = [
                component for component in response["InferenceComponents"] if component["VariantName"] == variant
            ]
        return response

    def update(self, request: Request) -> Response:
        """Update the specification or the number of copies. With a new specification, the earlier copies serve until
        the new copies serve."""
        record = self.find_in_service(request)
        earlier_deployment: Deployment = record.internal[DEPLOYMENT]
        if "RuntimeConfig" in request:
            _refuse_copy_count_of_adapter(earlier_deployment)
        count = request.get("RuntimeConfig", {}).get("CopyCount", len(earlier_deployment["Copies"]))
        if "Specification" not in request:
            return self._check_and_start_update(
                record,
                {**earlier_deployment, "Copies": specifications.make_copy_ids(count, earlier_deployment["Copies"])},
            )
        endpoint = find_resource(self.context, ENDPOINT, record.request["EndpointName"])
        copy_ids = specifications.make_copy_ids(count)
        deployment = self._make_deployment(
            request["Specification"], earlier_deployment["InstanceType"], endpoint, copy_ids
        )
        config = request.get("DeploymentConfig")
        return self._check_and_start_update(record, deployment, config)

    def update_runtime_config(self, request: Request) -> Response:
        """Change the number of copies. As many of the earlier copies as the new number allows keep running."""
        record = self.find_in_service(request)
        earlier_deployment: Deployment = record.internal[DEPLOYMENT]
        _refuse_copy_count_of_adapter(earlier_deployment)
        copy_ids = specifications.make_copy_ids(
            request["DesiredRuntimeConfig"]["CopyCount"], earlier_deployment["Copies"]
        )
        return self._check_and_start_update(record, {**earlier_deployment, "Copies": copy_ids})

    def _check_and_start_update(
        self, record: Record, deployment: Deployment, config: DeploymentConfig = None
    ) -> Response:
        """Check the DeploymentConfig, and start the update to a deployment."""
        count = len(deployment["Copies"])
        check_deployment_config(self.context, config or {}, count)
        runtime_config = {**record.description["RuntimeConfig"], "DesiredCopyCount": count}
        members = {} if config is None else {"LastDeploymentConfig": config}
        return self.start_update(record, deployment, config, RuntimeConfig=runtime_config, **members)

    def check_deletion(self, record: Record) -> None:
        if adapters := self._list_adapters(record.name):
            raise ValidationError(
                f"Cannot delete inference component {record.name} with adapters: delete {', '.join(adapters)} first."
            )

    def delete_record(self, name: str) -> None:
        self.context.state.delete(self.kind.arn_type, name)

    def _list_adapters(self, base: str) -> Sequence[str]:
        """Return the names of the adapters of a component."""
        query = Query(self.kind.arn_type, descending=False, limit=-1)
        records = self.context.state.find(query)
        return [record.name for record in records if record.request["Specification"].get(BASE_COMPONENT) == base]


def _find_variant(endpoint: Record, name: str) -> Mapping[str, Any]:
    """Return the variant of `endpoint` that is called `name`.

    Raise ValidationError if it does not exist, or if inference components cannot use it.
    """
    if endpoint.status in ("Failed", "Deleting"):
        raise ValidationError(f'Endpoint "{endpoint.arn}" is {endpoint.status}: choose another endpoint.')
    variants = {variant["VariantName"]: variant for variant in endpoint.internal[DEPLOYMENT]["Variants"]}
    if name not in variants:
        raise ValidationError(f"Endpoint {endpoint.name} has no variant {name}; it has: {', '.join(variants)}.")
    if "ModelName" in variants[name]:
        raise ValidationError(
            f"Variant {name} of endpoint {endpoint.name} has a ModelName: choose a variant without one."
        )
    return variants[name]  # type: ignore[no-any-return]  # the state stores it as JSON


def _refuse_copy_count_of_adapter(deployment: Deployment) -> None:
    """Raise ValidationError if a deployment is that of an adapter, which has no number of copies."""
    if "Base" in deployment:
        raise ValidationError("An adapter has no CopyCount: all copies of its base component load it.")
