"""Checks of endpoints whose variants have no ModelName, because inference components serve them."""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints.deployments import Deployment
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT
from microjobs_orchestrator.local.resources.inference_components.kinds import INFERENCE_COMPONENT
from microjobs_orchestrator.local.state import Owner, Query, Record

MEMBERS_THAT_NEED_MODELS = ("AsyncInferenceConfig", "ShadowProductionVariants")


def check_config(request: Mapping[str, Any]) -> None:
    """Check a CreateEndpointConfig request. Raise ValidationError if AWS refuses its variants without a ModelName."""
    variants_without_model = {
        variant["VariantName"]: variant for variant in request["ProductionVariants"] if "ModelName" not in variant
    }
    names = list(variants_without_model)
    if not names:
        return
    if serverless_names := [name for name, variant in variants_without_model.items() if "ServerlessConfig" in variant]:
        raise ValidationError(f"The serverless variant {serverless_names[0]} needs a ModelName.")
    if len(names) != len(request["ProductionVariants"]):
        raise ValidationError(
            f"Either all variants must have a ModelName, or none. Variants without a ModelName: {', '.join(names)}."
        )
    if "ExecutionRoleArn" not in request:
        raise ValidationError(
            f"Variant {names[0]} has no ModelName: set it, or set ExecutionRoleArn to use inference components."
        )
    if conflicting_members := [member for member in MEMBERS_THAT_NEED_MODELS if member in request]:
        raise ValidationError(f"{conflicting_members[0]} needs variants with a ModelName.")


def check_update(context: Context, endpoint: Record, deployment: Deployment) -> None:
    """Raise ValidationError if a new deployment lacks a variant that inference components use, or gives it a model."""
    variants = {variant["VariantName"] for variant in deployment["Variants"] if "Model" not in variant}
    for component in _list_components(context, endpoint):
        if (variant := component.request.get("VariantName")) not in variants:
            raise ValidationError(
                f"Inference component {component.name} uses variant {variant}, but configuration "
                f"{deployment['EndpointConfigName']} has no such variant, or gives it a ModelName: delete the "
                "component first."
            )


def check_deletion(context: Context, endpoint: Record) -> None:
    """Raise ValidationError if an endpoint still has inference components."""
    if names := [component.name for component in _list_components(context, endpoint)]:
        raise ValidationError(
            f'Cannot delete endpoint "{endpoint.arn}" with inference components: delete {", ".join(names)} first.'
        )


def _list_components(context: Context, endpoint: Record) -> list[Record]:
    owner = Owner(ENDPOINT.arn_type, endpoint.name)
    return context.state.find(Query(INFERENCE_COMPONENT.arn_type, owner=owner, descending=False, limit=-1))
