"""Finds, parses and validates the operation of an authenticated request, checks its parity, and performs it."""

import json
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial

from werkzeug import Response

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.gateway.exchange import (
    OWN_SERVICE,
    AnyService,
    Exchange,
    Interceptor,
    OwnOperations,
)
from microjobs_orchestrator.local.parity.table import refuse
from microjobs_orchestrator.local.protocols.answer import Answer
from microjobs_orchestrator.local.protocols.models import operation_model
from microjobs_orchestrator.local.protocols.validation import validate
from microjobs_orchestrator.local.tasks import call_in_thread

VALIDATION_CODES: Mapping[str, str] = {
    "s3": "InvalidArgument",
    "sagemaker-runtime": "ValidationError",
    "cloudwatch": "ValidationError",
}
"""Error codes of malformed and invalid requests, where a service has one code for both."""

TASK_OPERATIONS = frozenset({("sagemaker-runtime", "InvokeEndpoint")})
"""Services and operations whose handlers wait only in the ways in which tasks may wait."""


def make_own_operations(operations: OwnOperations) -> Interceptor:
    """Return an interceptor that performs the operations of `OWN_SERVICE`."""

    def perform(exchange: Exchange) -> Response | None:
        if exchange.service != OWN_SERVICE:
            return None
        try:
            value = json.loads(exchange.request.get_data())
        except (ValueError, RecursionError) as error:
            raise ValidationError(f"The body is not JSON: {error}") from error
        operations[exchange.request.path](value)
        return Response("{}", content_type="application/json")

    return perform


def make_operation_finder(services: Mapping[str, AnyService]) -> Interceptor:
    """Return an interceptor that finds the operation. A service that reads the body as a stream prepares it first."""

    def find_operation(exchange: Exchange) -> None:
        service = services[exchange.service]
        if not isinstance(service, Mapping):
            service.prepare(exchange)
        supported = service if isinstance(service, Mapping) else service.operations
        name = exchange.protocol.find_operation(exchange.service, exchange.request)
        if name not in supported:
            hint = "".join(f" (nearest: {nearest})" for nearest in get_close_matches(name, supported, n=1))
            message = f"operation {name!r} of {exchange.service} is not supported{hint}; supported: "
            code, status = exchange.protocol.UNKNOWN_OPERATION
            raise ServiceError(code, message + ", ".join(sorted(supported)), status)
        exchange.operation = operation_model(exchange.service, name)

    return find_operation


def read_members(exchange: Exchange) -> None:
    """Parse and validate the members of the request, and refuse those that are not supported."""
    try:
        exchange.members = exchange.protocol.parse(exchange.operation, exchange.request)
        validate(exchange.operation, exchange.members)
    except ServiceError as error:
        if error.code in ("SerializationException", "ValidationException") and exchange.service in VALIDATION_CODES:
            raise ServiceError(VALIDATION_CODES[exchange.service], error.message, error.status) from error
        raise
    refuse(exchange.service, exchange.operation.name, exchange.members)


def make_invoker(services: Mapping[str, AnyService]) -> Callable[[Exchange], Response]:
    """Return an interceptor that performs the operation and formats its result."""

    def invoke(exchange: Exchange) -> Response:
        service = services[exchange.service]
        if isinstance(service, Mapping):
            perform = partial(service[exchange.operation.name], exchange.members)
            is_prepared = (exchange.service, exchange.operation.name) in TASK_OPERATIONS
            result = perform() if is_prepared else call_in_thread(perform)
            answer = result if isinstance(result, Answer) else Answer(result)
        else:
            answer = call_in_thread(partial(service.invoke, exchange))
        if exchange.format_answer is not None:
            return exchange.format_answer(answer)
        return exchange.protocol.format_answer(exchange.operation, answer, exchange.request)

    return invoke
