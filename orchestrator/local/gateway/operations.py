"""Finds the operation of an authenticated request, parses and validates its members, refuses unsupported members, and
performs the operation."""

import json
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial

from werkzeug import Response

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.gateway.request_state import (
    OWN_SERVICE,
    AnyService,
    Interceptor,
    OwnOperations,
    RequestState,
)
from microjobs_orchestrator.local.parity.table import refuse_unsupported_members
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.protocols.responses import HttpResponse
from microjobs_orchestrator.local.protocols.results import OperationResult
from microjobs_orchestrator.local.protocols.validation import validate
from microjobs_orchestrator.local.tasks import call_in_thread

VALIDATION_CODES: Mapping[str, str] = {
    "s3": "InvalidArgument",
    "sagemaker-runtime": "ValidationError",
    "cloudwatch": "ValidationError",
}
"""Error codes of services that have the same code for malformed and invalid requests."""

TASK_OPERATIONS = frozenset({("sagemaker-runtime", "InvokeEndpoint")})
"""Services and operations that tasks can perform: their handlers wait only with the functions of `tasks`."""


def make_own_operation_invoker(operations: OwnOperations) -> Interceptor:
    """Return an interceptor that performs the operations of `OWN_SERVICE`."""

    def perform(state: RequestState) -> Response | None:
        if state.service != OWN_SERVICE:
            return None
        try:
            value = json.loads(state.request.get_data())
        except (ValueError, RecursionError) as error:
            raise ValidationError(f"The body is not JSON: {error}") from error
        operations[state.request.path](value)
        return Response("{}", content_type="application/json")

    return perform


def make_operation_finder(services: Mapping[str, AnyService]) -> Interceptor:
    """Return an interceptor that finds the operation. Before this, a service that reads the body as a stream
    prepares the request."""

    def find_operation(state: RequestState) -> None:
        service = services[state.service]
        if not isinstance(service, Mapping):
            service.prepare(state)
        operations = service if isinstance(service, Mapping) else service.operations
        name = state.protocol.find_operation(state.service, state.request)
        if name not in operations:
            hint = "".join(f" (nearest: {nearest})" for nearest in get_close_matches(name, operations, n=1))
            message = f"operation {name!r} of {state.service} is not supported{hint}; supported: "
            code, status = state.protocol.UNKNOWN_OPERATION
            raise ServiceError(code, message + ", ".join(sorted(operations)), status)
        state.operation = load_operation_model(state.service, name)

    return find_operation


def read_members(state: RequestState) -> None:
    """Parse and validate the members of the request, and refuse those that are not supported."""
    try:
        state.members = state.protocol.parse(state.operation, state.request)
        validate(state.operation, state.members)
    except ServiceError as error:
        if error.code in ("SerializationException", "ValidationException") and state.service in VALIDATION_CODES:
            raise ServiceError(VALIDATION_CODES[state.service], error.message, error.status) from error
        raise
    refuse_unsupported_members(state.service, state.operation.name, state.members)


def make_invoker(services: Mapping[str, AnyService]) -> Callable[[RequestState], HttpResponse]:
    """Return an interceptor that performs the operation and formats its result."""

    def invoke(state: RequestState) -> HttpResponse:
        service = services[state.service]
        if isinstance(service, Mapping):
            perform = partial(service[state.operation.name], state.members)
            runs_in_task = (state.service, state.operation.name) in TASK_OPERATIONS
            result = perform() if runs_in_task else call_in_thread(perform)
            result = result if isinstance(result, OperationResult) else OperationResult(result)
        else:
            result = call_in_thread(partial(service.invoke, state))
        if state.format_result is not None:
            return state.format_result(result)
        return state.protocol.format_result(state.operation, result, state.request)

    return invoke
