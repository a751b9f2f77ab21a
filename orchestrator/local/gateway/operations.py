"""The operation of an authenticated request: found, parsed, validated, checked for parity, and performed."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches

from werkzeug import Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.exchange import AnyService, Exchange, Interceptor, StreamingService
from microjobs_orchestrator.local.gateway.validation import validate
from microjobs_orchestrator.local.parity.table import refuse
from microjobs_orchestrator.local.protocols.answer import Answer
from microjobs_orchestrator.local.protocols.models import operation_model

VALIDATION_CODES: Mapping[str, str] = {"s3": "InvalidArgument", "sagemaker-runtime": "ValidationError"}
"""Error codes of malformed and invalid requests, where a service has one code for both."""


def make_body_setup(streaming: Mapping[str, StreamingService]) -> Interceptor:
    """Return an interceptor that lets a service set up a body which it reads as a stream."""

    def prepare_body(exchange: Exchange) -> None:
        if exchange.service in streaming:
            streaming[exchange.service].prepare(exchange)

    return prepare_body


def make_operation_finder(operations: Mapping[str, Collection[str]]) -> Interceptor:
    """Return an interceptor that finds the operation.

    Args:
        operations: names of the supported operations by service.
    """

    def find_operation(exchange: Exchange) -> None:
        name = exchange.protocol.find_operation(exchange.service, exchange.request)
        known = operations[exchange.service]
        if name not in known:
            nearest = get_close_matches(name, known, n=1)
            hint = f" (nearest: {nearest[0]})" if nearest else ""
            message = f"operation {name!r} of {exchange.service} is not supported{hint}; supported: "
            code, status = exchange.protocol.UNKNOWN_OPERATION
            raise ServiceError(code, message + ", ".join(sorted(known)), status)
        exchange.operation = operation_model(exchange.service, name)

    return find_operation


def parse_members(exchange: Exchange) -> None:
    with _own_codes(exchange.service):
        exchange.members = exchange.protocol.parse(exchange.operation, exchange.request)


def validate_members(exchange: Exchange) -> None:
    with _own_codes(exchange.service):
        validate(exchange.operation, exchange.members)


@contextmanager
def _own_codes(service: str) -> Iterator[None]:
    """Raise errors of a request's form under the service's own name for them."""
    try:
        yield
    except ServiceError as error:
        if error.code in ("SerializationException", "ValidationException") and service in VALIDATION_CODES:
            raise ServiceError(VALIDATION_CODES[service], error.message, error.status) from error
        raise


def refuse_unsupported(exchange: Exchange) -> None:
    refuse(exchange.service, exchange.operation.name, exchange.members)


def make_invoker(services: Mapping[str, AnyService]) -> Interceptor:
    """Return an interceptor that performs the operation and formats its result."""

    def invoke(exchange: Exchange) -> Response:
        service = services[exchange.service]
        if isinstance(service, Mapping):
            result = service[exchange.operation.name](exchange.members)
            answer = result if isinstance(result, Answer) else Answer(result)
        else:
            answer = service.invoke(exchange)
        if exchange.format_answer is not None:
            return exchange.format_answer(answer)
        return exchange.protocol.format_answer(exchange.operation, answer, exchange.request)

    return invoke
