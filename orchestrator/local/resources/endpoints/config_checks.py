"""Checks of CreateEndpointConfig requests: buckets, and combinations of members that are refused."""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints import asynchronous, captures


def check(context: Context, request: Mapping[str, Any]) -> None:
    """Raise ValidationError for a request that is not valid, or not supported."""
    if "AsyncInferenceConfig" in request:
        asynchronous.check_buckets(context, request["AsyncInferenceConfig"])
    if _captures_data(request):
        captures.check_destination(context, request["DataCaptureConfig"])
        if "AsyncInferenceConfig" in request:
            reason = "the buckets already contain the inputs and the outputs"
            raise ValidationError(f"DataCaptureConfig is not supported together with AsyncInferenceConfig: {reason}.")


def _captures_data(request: Mapping[str, Any]) -> bool:
    return "DataCaptureConfig" in request and captures.is_enabled(request["DataCaptureConfig"])
