"""Operations that the console may call: operations that only read, and some that change resources."""

from collections.abc import Callable, Mapping

from microjobs_orchestrator.local.console.protocol import ConsoleProtocol
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.operations import make_invoker, read_members
from microjobs_orchestrator.local.gateway.request_state import AnyService, RequestState
from microjobs_orchestrator.local.kinds import load_kinds
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.protocols.responses import HttpResponse

READ_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "sagemaker": ("Describe", "List", "Search", "BatchDescribe"),
    "logs": ("Describe", "Get", "Filter"),
    "cloudwatch": ("Get", "List"),
    "sagemaker-metrics": ("BatchGet",),
    "s3": ("ListBuckets", "ListObjectsV2", "HeadObject"),
}
"""Prefixes of the names of the read-only operations that the console may call, by service."""

CHANGE_OPERATIONS: Mapping[str, frozenset[str]] = {
    "sagemaker": frozenset(
        (
            *(kind.operations[verb] for kind in load_kinds() for verb in ("Create", "Stop") if verb in kind.operations),
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
"""Maximum size of a body. SageMaker Runtime's limit is 25 MiB, which is 33.3 MiB in base64."""

CallOperation = Callable[[RequestState, str, str], HttpResponse]
"""A function that performs an operation. Its arguments are the request, the name of the service and the name of the
operation."""


def is_allowed(service: str, operation: str) -> bool:
    return operation.startswith(READ_PREFIXES.get(service, ())) or operation in CHANGE_OPERATIONS.get(service, ())


def make_operation_caller(services: Mapping[str, AnyService]) -> CallOperation:
    """Return a function that performs an operation as for other clients: it validates the members, checks them
    against their parity rows, and calls the handler."""
    invoke = make_invoker(services)

    def call(state: RequestState, service_name: str, operation_name: str) -> HttpResponse:
        service = services.get(service_name, {})
        operations = service if isinstance(service, Mapping) else service.operations
        if operation_name not in operations or not is_allowed(service_name, operation_name):
            message = f"the console cannot call {operation_name!r:.80} of {service_name!r:.40}"
            raise ServiceError("AccessDeniedException", message, 403)
        state.protocol = ConsoleProtocol()
        state.service, state.operation = service_name, load_operation_model(service_name, operation_name)
        read_members(state)
        return invoke(state)

    return call
