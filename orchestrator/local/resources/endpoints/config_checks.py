"""Checks of CreateEndpointConfig requests: models, buckets, and combinations of members that are refused."""

from collections.abc import Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle import inputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints import asynchronous, captures
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.operations import find_resource

Members = Mapping[str, Any]


def check(context: Context, request: Members) -> None:
    """Raise ValidationError for a request that is not valid, or not supported."""
    variants, shadows = request["ProductionVariants"], request.get("ShadowProductionVariants", [])
    inputs.check_unique("VariantNames", [variant["VariantName"] for variant in (*variants, *shadows)])
    for variant in (*variants, *shadows):
        find_resource(context, MODEL, variant["ModelName"])
    if "AsyncInferenceConfig" in request:
        asynchronous.check_buckets(context, request["AsyncInferenceConfig"])
    if _captures_data(request):
        captures.check_destination(context, request["DataCaptureConfig"])
    _refuse_with(request, "AsyncInferenceConfig", _list_features(request))
    if shadows and (len(variants), len(shadows)) != (1, 1):
        counts = f"{len(variants)} production variants and {len(shadows)} shadow variants"
        raise ValidationError(f"An endpoint with a shadow variant has one variant of each kind, not {counts}.")


def _list_features(request: Members) -> list[str]:
    """Return those members of a request that AsyncInferenceConfig excludes."""
    capture = ["DataCaptureConfig"] if _captures_data(request) else []
    return [*capture, *(name for name in ("ShadowProductionVariants",) if request.get(name))]


def _refuse_with(request: Members, member: str, others: Sequence[str]) -> None:
    if member in request and others:
        raise ValidationError(f"{', '.join(others)} is not supported together with {member}: remove one of them.")


def _captures_data(request: Members) -> bool:
    return "DataCaptureConfig" in request and captures.is_enabled(request["DataCaptureConfig"])
