"""Operations that the console may call: those that only read, and some that change resources."""

from collections.abc import Callable, Mapping

from werkzeug import Response

from microjobs_orchestrator.local.console.protocol import ConsoleProtocol
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.exchange import AnyService, Exchange
from microjobs_orchestrator.local.gateway.operations import make_invoker, read_members
from microjobs_orchestrator.local.kinds import all_kinds
from microjobs_orchestrator.local.protocols.models import operation_model

READING: Mapping[str, tuple[str, ...]] = {
    "sagemaker": ("Describe", "List", "Search", "BatchDescribe"),
    "logs": ("Describe", "Get", "Filter"),
    "cloudwatch": ("Get", "List"),
    "sagemaker-metrics": ("BatchGet",),
    "s3": ("ListBuckets", "ListObjectsV2", "HeadObject"),
}
"""Prefixes of the names of read-only operations, by service."""

CHANGING: Mapping[str, frozenset[str]] = {
    "sagemaker": frozenset(
        (
            *(kind.operations[verb] for kind in all_kinds() for verb in ("Create", "Stop") if verb in kind.operations),
            "CreatePresignedMlflowAppUrl",
            "CreatePresignedMlflowTrackingServerUrl",
            "DeleteEndpointConfig",
            "DeleteModel",
            "RetryPipelineExecution",
            "UpdateEndpoint",
            "UpdateModelPackage",
        )
    ),
    "sagemaker-runtime": frozenset(("InvokeEndpoint", "InvokeEndpointAsync", "InvokeEndpointWithResponseStream")),
}
"""All other operations that the console may call, by service."""

MAX_BODY_BYTES = 1 << 20
MAX_BODY_BYTES_BY_SERVICE = {"sagemaker-runtime": 34 << 20}
"""SageMaker Runtime's limit is 25 MiB, which are 33.4 MiB in base64."""

Call = Callable[[Exchange, str, str], Response]
"""Performs an operation: takes the request, the name of the service and the name of the operation."""


def is_allowed(service: str, operation: str) -> bool:
    return operation.startswith(READING.get(service, ())) or operation in CHANGING.get(service, ())


def make_caller(services: Mapping[str, AnyService]) -> Call:
    """Return a function that performs an operation as for all clients: validation, parity, handler."""
    invoke = make_invoker(services)

    def call(exchange: Exchange, service: str, name: str) -> Response:
        supported = services.get(service, {})
        names = supported if isinstance(supported, Mapping) else supported.operations
        if name not in names or not is_allowed(service, name):
            raise ServiceError("AccessDeniedException", f"the console cannot call {name!r:.80} of {service!r:.40}", 403)
        exchange.protocol = ConsoleProtocol()
        exchange.service, exchange.operation = service, operation_model(service, name)
        read_members(exchange)
        return invoke(exchange)

    return call
