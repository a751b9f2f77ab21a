"""Checks of CreateEndpointConfig requests: models, buckets, and combinations of members that are refused."""

from collections.abc import Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle import inputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints import asynchronous, captures, components, serverless
from microjobs_orchestrator.local.resources.models.containers import list_containers, refuse_direct_mode
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.models.multi_model import refuse_multi_model
from microjobs_orchestrator.local.resources.operations import find_resource

Members = Mapping[str, Any]

EXCLUSIONS = [
    *(
        (serverless.SERVERLESS_CONFIG, other)
        for other in ("AsyncInferenceConfig", "ShadowProductionVariants", "DataCaptureConfig")
    ),
    ("AsyncInferenceConfig", "ShadowProductionVariants"),
]
"""Pairs of features that exclude each other."""
ISOLATION_MEMBERS = ("EnableNetworkIsolation", "VpcConfig")
"""Members of models that serverless variants exclude."""
INSTANCE_MEMBERS = ("InstanceType", "InitialInstanceCount", "VolumeSizeInGB", "ManagedInstanceScaling")
"""Members of a variant that concern its instances. A serverless variant has no instances."""


def check(context: Context, request: Members) -> None:
    """Raise ValidationError for a request that is not valid, or not supported."""
    variants, shadows = request["ProductionVariants"], request.get("ShadowProductionVariants", [])
    inputs.check_unique("VariantNames", [variant["VariantName"] for variant in (*variants, *shadows)])
    for variant in (*variants, *shadows):
        _check_variant(context, variant, has_shadow=bool(shadows))
    components.check_config(request)
    is_serverless = any(serverless.SERVERLESS_CONFIG in variant for variant in (*variants, *shadows))
    _check_counts(len(variants), shadow_count=len(shadows), is_serverless=is_serverless)
    _check_features([serverless.SERVERLESS_CONFIG if is_serverless else "", *_list_features(request)])
    _check_async_and_capture(context, request)


def _check_async_and_capture(context: Context, request: Members) -> None:
    """Check the models and the AsyncInferenceConfig of an asynchronous endpoint, and the bucket of data capture."""
    if "AsyncInferenceConfig" in request:
        for variant in request["ProductionVariants"]:
            model = find_resource(context, MODEL, variant["ModelName"]).request
            refuse_multi_model(model, "AsyncInferenceConfig")
            refuse_direct_mode(model, "AsyncInferenceConfig")
        asynchronous.check_config(context, request["AsyncInferenceConfig"])
    if _captures_data(request):
        captures.check_destination(context, request["DataCaptureConfig"])


def _check_counts(variant_count: int, *, shadow_count: int, is_serverless: bool) -> None:
    if is_serverless and variant_count > 1:
        raise ValidationError(f"A serverless endpoint has one variant, not {variant_count}.")
    if shadow_count and (variant_count, shadow_count) != (1, 1):
        counts = f"{variant_count} production variants and {shadow_count} shadow variants"
        raise ValidationError(
            f"An endpoint with a shadow variant has one production and one shadow variant, not {counts}."
        )


def check_update(deployment: Members, next_deployment: Members) -> None:
    """Raise ValidationError if an update would make an endpoint with instances serverless, which AWS refuses."""
    if _is_serverless(next_deployment) and not _is_serverless(deployment):
        raise ValidationError("An endpoint with instances cannot become serverless: create another endpoint.")


def _is_serverless(deployment: Members) -> bool:
    return any(serverless.SERVERLESS_CONFIG in variant for variant in deployment["Variants"])


def _check_variant(context: Context, variant: Members, *, has_shadow: bool) -> None:
    """Check that a variant has either instances or a ServerlessConfig. Also check that its model has no feature that a
    serverless variant, or an endpoint with a shadow variant, excludes."""
    name, instance_members = variant["VariantName"], [member for member in INSTANCE_MEMBERS if member in variant]
    model = find_resource(context, MODEL, variant["ModelName"]).request if "ModelName" in variant else {}
    if has_shadow:
        _refuse_features("endpoint with a shadow variant", _list_container_features(model))
    if serverless.SERVERLESS_CONFIG in variant:
        if instance_members:
            raise ValidationError(
                f"Variant {name} has both ServerlessConfig and {instance_members[0]}: remove one of them."
            )
        _check_serverless(variant, model)
    elif "InstanceType" not in variant:
        raise ValidationError(f"Variant {name} needs an InstanceType, or a ServerlessConfig.")


def _check_serverless(variant: Members, model: Members) -> None:
    """Check the numbers of a serverless variant, and that its model has no feature that AWS excludes."""
    serverless.check_config(variant[serverless.SERVERLESS_CONFIG])
    excluded_features = [*_list_container_features(model), *(name for name in ISOLATION_MEMBERS if model.get(name))]
    _refuse_features(f"serverless variant {variant['VariantName']}", excluded_features)


def _list_container_features(model: Members) -> list[str]:
    """Return those features of a model's containers that serverless variants, and endpoints with a shadow variant,
    exclude."""
    containers = list_containers(model)
    features = {
        "several containers": len(containers) > 1,
        "Mode MultiModel": any(container.get("Mode") == "MultiModel" for container in containers),
    }
    return [feature for feature, is_used in features.items() if is_used]


def _refuse_features(subject: str, features: Sequence[str]) -> None:
    """Raise ValidationError unless `features`, the excluded features that a model has, is empty.

    Args:
        subject: the variant or the endpoint that excludes the features. The message begins with it.
    """
    if features:
        raise ValidationError(f"The {subject} does not support models with {' and '.join(features)}.")


def _list_features(request: Members) -> list[str]:
    """Return those features of a request, except serverless variants, that are in EXCLUSIONS."""
    names = [name for name in ("AsyncInferenceConfig", "ShadowProductionVariants") if request.get(name)]
    return [*names, *(["DataCaptureConfig"] if _captures_data(request) else [])]


def _check_features(features: Sequence[str]) -> None:
    for first, second in EXCLUSIONS:
        if first in features and second in features:
            raise ValidationError(f"{second} is not supported together with {first}: remove one of them.")


def _captures_data(request: Members) -> bool:
    return "DataCaptureConfig" in request and captures.is_enabled(request["DataCaptureConfig"])
