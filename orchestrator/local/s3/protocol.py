"""Which of S3's operations a request is for, from botocore's own model of the service."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import parse_qsl

import botocore.loaders
from botocore.model import OperationModel, ServiceModel, StructureShape

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.s3.wire import Incoming

SIGNATURE = frozenset({"AWSAccessKeyId", "Expires", "Signature"})
"""In the query of a URL that was presigned the old way; the newer one's begin with `X-Amz-`."""

_LEVELS = {"/": 0, "/{Bucket}": 1, "/{Bucket}/{Key+}": 2}


@dataclass(frozen=True)
class Route:
    """What a request must have to be for an operation."""

    operation: OperationModel
    method: str
    level: int
    """0: no bucket, 1: a bucket, 2: a key."""
    literals: Mapping[str, str]
    """Parts of the query that name the operation, such as `uploads`."""
    required: frozenset[str]
    """Names of headers, in lower case, and of query parameters."""


@cache
def service_model() -> ServiceModel:
    return ServiceModel(botocore.loaders.create_loader().load_service_model("s3", "service-2"), "s3")


@cache
def _routes() -> tuple[Route, ...]:
    model = service_model()
    routes = (_route(model.operation_model(name)) for name in sorted(model.operation_names))
    return tuple(route for route in routes if route is not None)


def _route(operation: OperationModel) -> Route | None:
    path, _, query = operation.http["requestUri"].partition("?")
    if path not in _LEVELS or (operation.deprecated and operation.name != "DeleteBucketLifecycle"):
        return None  # an old operation has the address of the one that replaced it
    shape = operation.input_shape
    members = [name for name in shape.required_members if _is_beside(shape, name)] if shape else []
    required = frozenset(wire_name(shape, name) for name in members) if shape else frozenset()
    literals = dict(parse_qsl(query, keep_blank_values=True))
    return Route(operation, operation.http["method"], _LEVELS[path], literals, required)


def _is_beside(shape: StructureShape, member: str) -> bool:
    """Whether a member is neither in the path nor in the body."""
    return shape.members[member].serialization.get("location") in ("header", "querystring")


def wire_name(shape: StructureShape, member: str) -> str:
    """The header (in lower case) or query parameter of a member."""
    serialization = shape.members[member].serialization
    name: str = serialization.get("name", member)
    return name.lower() if serialization.get("location") == "header" else name


def find_operation(incoming: Incoming) -> OperationModel:
    """The operation that a request is for.

    Raises:
        ServiceError: MethodNotAllowed 405; or InvalidRequest, something that the operation needs is not there.
    """
    level = 2 if incoming.key else 1 if incoming.bucket else 0
    there = incoming.query.keys() | incoming.headers.keys()
    named = [
        route
        for route in _routes()
        if route.method == incoming.method and route.level == level and route.literals.items() <= incoming.query.items()
    ]
    if not named:
        message = f"The method {incoming.method} is not allowed on {incoming.resource}."
        raise ServiceError("MethodNotAllowed", message, 405)
    most = max(len(route.literals) for route in named)
    named = [route for route in named if len(route.literals) == most]
    complete = [route for route in named if route.required <= there]
    if not complete:
        missing = ", ".join(sorted(named[0].required - there))
        raise ServiceError("InvalidRequest", f"{named[0].operation.name} needs {missing}.")
    return max(complete, key=lambda route: len(route.required)).operation


def check_query(operation: OperationModel, incoming: Incoming) -> None:
    """Refuse what the operation does not know: it could change what the client means.

    Raises:
        ServiceError: NotImplemented 501.
    """
    shape = operation.input_shape
    known = {wire_name(shape, name) for name in shape.members} if shape else set()
    known |= set(dict(parse_qsl(operation.http["requestUri"].partition("?")[2], keep_blank_values=True)))
    for name in incoming.query.keys() - known - SIGNATURE:
        if not name.lower().startswith("x-amz-") and name != "x-id":
            raise ServiceError("NotImplemented", f"{operation.name} has no query parameter {name!r} here.", 501)
