"""The operations on inference components.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateInferenceComponent.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateInferenceComponent.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateInferenceComponentRuntimeConfig.html
"""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.registry import Runnable
from microjobs_orchestrator.local.resources.endpoints.deployer import DEPLOYMENT, NEXT_DEPLOYMENT, Deployment
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT
from microjobs_orchestrator.local.resources.inference_components import specifications
from microjobs_orchestrator.local.resources.inference_components.component import InferenceComponent
from microjobs_orchestrator.local.resources.inference_components.kinds import INFERENCE_COMPONENT
from microjobs_orchestrator.local.resources.inference_components.specifications import Specification
from microjobs_orchestrator.local.resources.listing import list_resources
from microjobs_orchestrator.local.resources.operations import (
    Answer,
    Handler,
    Request,
    RunningOperations,
    add_resource,
    find_resource,
)
from microjobs_orchestrator.local.state import Owner, Record


class InferenceComponentOperations(RunningOperations):
    kind = INFERENCE_COMPONENT

    def add(self, request: Request) -> Record:
        if not {"VariantName", "Specification", "RuntimeConfig"} <= request.keys():
            raise ValidationError(
                "An inference component must have a VariantName, a Specification and a RuntimeConfig."
            )
        endpoint = find_resource(self.context, ENDPOINT, request["EndpointName"])
        variant = _find_variant(endpoint, request["VariantName"])
        copies = specifications.make_copies(request["RuntimeConfig"]["CopyCount"])
        deployment = self._deploy(request["Specification"], variant["InstanceType"], endpoint, copies)
        members = {**specifications.describe(deployment, copies=0), "EndpointArn": endpoint.arn}
        owner = Owner(ENDPOINT.arn_type, endpoint.name)
        return add_resource(
            self.context,
            INFERENCE_COMPONENT,
            request,
            members=members,
            internal={DEPLOYMENT: deployment},
            owner=owner,
        )

    def _deploy(
        self, specification: Specification, instance_type: str, endpoint: Record, copies: list[str]
    ) -> Deployment:
        specifications.check(specification)
        is_isolated = bool(endpoint.internal[DEPLOYMENT].get("EnableNetworkIsolation", False))
        model = specifications.find_model(self.context, specification, is_isolated=is_isolated)
        return {"Model": model, "Specification": specification, "InstanceType": instance_type, "Copies": copies}

    def make_runnable(self, record: Record) -> Runnable:
        return InferenceComponent(self.context, record)

    def further_handlers(self) -> Mapping[str, Handler]:
        return {
            "UpdateInferenceComponent": self.update,
            "UpdateInferenceComponentRuntimeConfig": self.update_runtime_config,
        }

    def list(self, request: Request) -> Answer:
        filters: dict[str, Any] = {}
        if "EndpointNameEquals" in request:
            filters["owner"] = Owner(ENDPOINT.arn_type, request["EndpointNameEquals"])
        answer = list_resources(self.context.state, self.kind, request, self.compute_members, **filters)
        if (variant := request.get("VariantNameEquals")) is not None:
            answer["InferenceComponents"] = [
                component for component in answer["InferenceComponents"] if component["VariantName"] == variant
            ]
        return answer

    def update(self, request: Request) -> Answer:
        """Update the specification and the number of copies. The earlier copies serve until the new ones do."""
        record = self._find_in_service(request)
        earlier: Deployment = record.internal[DEPLOYMENT]
        count = request.get("RuntimeConfig", {}).get("CopyCount", len(earlier["Copies"]))
        if "Specification" not in request:
            return self._start_update(
                record, {**earlier, "Copies": specifications.make_copies(count, earlier["Copies"])}
            )
        endpoint = find_resource(self.context, ENDPOINT, record.request["EndpointName"])
        copies = specifications.make_copies(count)
        deployment = self._deploy(request["Specification"], earlier["InstanceType"], endpoint, copies)
        return self._start_update(record, deployment)

    def update_runtime_config(self, request: Request) -> Answer:
        """Change the number of copies. The first copies keep running."""
        record = self._find_in_service(request)
        earlier: Deployment = record.internal[DEPLOYMENT]
        copies = specifications.make_copies(request["DesiredRuntimeConfig"]["CopyCount"], earlier["Copies"])
        return self._start_update(record, {**earlier, "Copies": copies})

    def _find_in_service(self, request: Request) -> Record:
        record = self.find(request)
        if record.status != "InService":
            message = (
                f'Cannot update inference component "{record.arn}", which is {record.status}: it must be InService.'
            )
            raise ValidationError(message)
        return record

    def _start_update(self, record: Record, deployment: Deployment) -> Answer:
        counts = {**record.description["RuntimeConfig"], "DesiredCopyCount": len(deployment["Copies"])}
        changes = {self.kind.status_member: "Updating", "RuntimeConfig": counts}
        update, arn_type, internal = self.context.state.update, self.kind.arn_type, {NEXT_DEPLOYMENT: deployment}
        if update(arn_type, record.name, changes, "Updating", internal=internal, only_if=("InService",)) is None:
            raise ValidationError(f'Another request has just changed inference component "{record.arn}": try again.')
        if isinstance(component := self.registry.find(f"{arn_type}/{record.name}"), InferenceComponent):
            component.wake()
        return {self.kind.arn_member: record.arn}

    def delete(self, request: Request) -> Answer:
        """Delete a component in any status. Its thread deletes the record after the copies have ended."""
        name = self.find(request).name
        self.context.state.update(self.kind.arn_type, name, {self.kind.status_member: "Deleting"}, "Deleting")
        if not self.registry.stop(f"{self.kind.arn_type}/{name}"):  # it failed before this server started
            self.context.state.delete(self.kind.arn_type, name)
        return {}


def _find_variant(endpoint: Record, name: str) -> Mapping[str, Any]:
    """Return the variant of an endpoint that inference components use. Raise ValidationError if there is none."""
    if endpoint.status in ("Failed", "Deleting"):
        raise ValidationError(f'Endpoint "{endpoint.arn}" is {endpoint.status}: it must be InService.')
    variants = {variant["VariantName"]: variant for variant in endpoint.internal[DEPLOYMENT]["Variants"]}
    if name not in variants:
        raise ValidationError(f"Endpoint {endpoint.name} has no variant {name}; it has: {', '.join(variants)}.")
    if "ModelName" in variants[name]:
        raise ValidationError(
            f"Variant {name} of endpoint {endpoint.name} has a ModelName: inference components need a variant without."
        )
    return variants[name]  # type: ignore[no-any-return]  # the state stores it as JSON
