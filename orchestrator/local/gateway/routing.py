"""Chooses the service of a request: a service of this server, or a service that another emulator answers."""

from collections.abc import Collection, Container
from functools import cache

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.forward import Forwarder
from microjobs_orchestrator.local.gateway.request_state import (
    MLFLOW_HEADERS,
    MLFLOW_SERVICE,
    OWN_SERVICE,
    Interceptor,
    RequestState,
)
from microjobs_orchestrator.local.protocols.http import get_headers
from microjobs_orchestrator.local.protocols.models import get_signing_name
from microjobs_orchestrator.local.protocols.protocol import find_protocol, get_protocol, get_service_protocol
from microjobs_orchestrator.local.protocols.rest_routes import has_first_segment

MLFLOW_SIGNING_NAMES = ("sagemaker-mlflow", "sagemaker")
"""The package sagemaker-mlflow uses the first name for tracking servers, and the second name for apps."""


def make_service_chooser(services: Collection[str], forwarder: Forwarder, own_paths: Container[str]) -> Interceptor:
    """Return an interceptor that finds the service, and with it the protocol of the response.

    Args:
        services: botocore's names of this server's services.
        own_paths: paths of `OWN_SERVICE`.
    """
    service_names = sorted(services)
    names_by_signing_name: dict[str, list[str]] = {}
    for name in service_names:
        names_by_signing_name.setdefault(get_signing_name(name), []).append(name)

    def choose_service(state: RequestState) -> None:
        request, signing_service = state.request, state.claim.service
        if own_service := _find_own_service(state, own_paths):
            state.service, state.protocol = own_service, get_protocol("json")
        elif forwarder.find_url(signing_service) is not None:
            if name := forwarder.find_name(signing_service):
                state.protocol = find_protocol(name, request)
        else:
            state.service = _choose_by_request(names_by_signing_name.get(signing_service, []), state)
            if not state.service:
                problem = f"service {signing_service!r} at {request.path!r} is not supported"
                supported = f"supported: {', '.join(service_names)}"
                remedy = "to use another emulator for it, add it to [local.services] in microjobs.toml"
                raise ServiceError("UnknownService", f"{problem}; {supported}; {remedy}", 404)
            state.protocol = find_protocol(state.service, request)

    return choose_service


def _find_own_service(state: RequestState, own_paths: Container[str]) -> str:
    """Return `OWN_SERVICE` or `MLFLOW_SERVICE`; empty if the request is for a service that botocore knows."""
    request = state.request
    if request.method == "POST" and request.path in own_paths and state.form is None:
        return OWN_SERVICE
    is_signed_for_mlflow = state.claim.service in MLFLOW_SIGNING_NAMES
    return "" if not is_signed_for_mlflow or get_headers(request).keys().isdisjoint(MLFLOW_HEADERS) else MLFLOW_SERVICE


def _choose_by_request(names: Collection[str], state: RequestState) -> str:
    """Return the service of a request among services that share a signing name; empty if no service matches.

    SageMaker and SageMaker Runtime both sign as `sagemaker`. SageMaker has the json protocol, so its requests have
    X-Amz-Target. A request for SageMaker Runtime has a path that starts like the path of one of its operations.
    """
    if len(names) < 2:
        return next(iter(names), "")
    has_target_header = "x-amz-target" in get_headers(state.request)
    for name in names:
        if has_target_header == _uses_json(name) and (has_target_header or has_first_segment(name, state.request.path)):
            return name
    return ""


@cache
def _uses_json(service: str) -> bool:
    return get_service_protocol(service) is get_protocol("json")
