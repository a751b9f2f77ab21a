"""The resources that can be scaled: the variants of endpoints, and inference components."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT
from microjobs_orchestrator.local.resources.inference_components.kinds import INFERENCE_COMPONENT
from microjobs_orchestrator.local.state import State

VARIANT_SCALABLE_DIMENSION = "sagemaker:variant:DesiredInstanceCount"
COMPONENT_SCALABLE_DIMENSION = "sagemaker:inference-component:DesiredCopyCount"
VARIANT_ID_PATTERN = re.compile(r"endpoint/(?P<endpoint>[^/]+)/variant/(?P<variant>[^/]+)")
COMPONENT_ID_PATTERN = re.compile(r"inference-component/(?P<component>[^/]+)")


@dataclass(frozen=True)
class Capacity:
    """The number of instances or copies of a resource."""

    count: int
    can_change: bool
    """Whether the number can be changed: the resource is in service and is not being updated."""


class ScalableResource(Protocol):
    """A resource with a number of instances or copies."""

    capacity_noun: str
    """The word for the capacity in messages, such as `copy count`."""

    @property
    def metric_dimensions(self) -> Mapping[str, str]:
        """The dimensions of the metrics of its invocations."""

    def read(self, state: State) -> Capacity | None:
        """Return the current capacity; None if the resource does not exist, or cannot be scaled."""

    def make_update(self, count: int) -> tuple[str, Mapping[str, Any]]:
        """Return the SageMaker operation that changes the number, and the request for this operation."""


@dataclass(frozen=True)
class Variant:
    """A variant of an endpoint."""

    endpoint: str
    variant: str
    capacity_noun = "instance count"

    @property
    def metric_dimensions(self) -> Mapping[str, str]:
        return {"EndpointName": self.endpoint, "VariantName": self.variant}

    def read(self, state: State) -> Capacity | None:
        record = state.get(ENDPOINT.arn_type, self.endpoint)
        variants = record.description.get("ProductionVariants") or () if record is not None else ()
        variant = next((item for item in variants if item["VariantName"] == self.variant), None)
        if record is None or variant is None or "DesiredServerlessConfig" in variant:
            return None
        return Capacity(variant["DesiredInstanceCount"], record.status == "InService")

    def make_update(self, count: int) -> tuple[str, Mapping[str, Any]]:
        item = {"VariantName": self.variant, "DesiredInstanceCount": count}
        request = {"EndpointName": self.endpoint, "DesiredWeightsAndCapacities": [item]}
        return "UpdateEndpointWeightsAndCapacities", request


@dataclass(frozen=True)
class Component:
    """An inference component."""

    component: str
    capacity_noun = "copy count"

    @property
    def metric_dimensions(self) -> Mapping[str, str]:
        return {"InferenceComponentName": self.component}

    def read(self, state: State) -> Capacity | None:
        record = state.get(INFERENCE_COMPONENT.arn_type, self.component)
        if record is None or "BaseInferenceComponentName" in record.request["Specification"]:
            return None
        return Capacity(record.description["RuntimeConfig"]["DesiredCopyCount"], record.status == "InService")

    def make_update(self, count: int) -> tuple[str, Mapping[str, Any]]:
        request = {"InferenceComponentName": self.component, "DesiredRuntimeConfig": {"CopyCount": count}}
        return "UpdateInferenceComponentRuntimeConfig", request


def parse_resource_id(resource_id: str, scalable_dimension: str) -> ScalableResource:
    """Return the resource with an id and a scalable dimension. Raise ServiceError for an invalid id."""
    if scalable_dimension == VARIANT_SCALABLE_DIMENSION and (match := VARIANT_ID_PATTERN.fullmatch(resource_id)):
        return Variant(**match.groupdict())
    if scalable_dimension == COMPONENT_SCALABLE_DIMENSION and (match := COMPONENT_ID_PATTERN.fullmatch(resource_id)):
        return Component(**match.groupdict())
    form = (
        "endpoint/NAME/variant/NAME" if scalable_dimension == VARIANT_SCALABLE_DIMENSION else "inference-component/NAME"
    )
    raise ServiceError("ValidationException", f"ResourceId {resource_id} must be {form} for {scalable_dimension}.")
