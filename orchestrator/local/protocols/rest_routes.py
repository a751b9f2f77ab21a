"""Addresses of REST protocols: the method, the path and the query string determine the operation."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from urllib.parse import parse_qsl, unquote_to_bytes

from botocore.model import OperationModel, Shape
from werkzeug import Request

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.http import get_headers, get_target
from microjobs_orchestrator.local.protocols.models import load_service_model


@dataclass(frozen=True, eq=False)  # without eq, caches compare the identities of objects, which is fast
class RestErrorCodes:
    """Error codes and HTTP statuses of a REST protocol."""

    unknown_address: tuple[str, int]
    """No operation has the method and the path."""
    missing_parameter: tuple[str, int]
    """A header or parameter that the operation requires is missing."""
    malformed_address: tuple[str, int]
    """The path or the query string is not percent-encoded UTF-8."""
    malformed_value: tuple[str, int]
    """A value has the wrong type, or a parameter is repeated."""
    unknown_parameter: tuple[str, int]
    """The query string has a parameter that the operation does not have."""


def make_error(code: tuple[str, int], message: str) -> ServiceError:
    return ServiceError(code[0], message, code[1])


@dataclass(frozen=True)
class Route:
    """Address of an operation, and the locations of the members of its request."""

    operation: OperationModel
    method: str
    path_pattern: re.Pattern[str]
    labels: Sequence[str]
    """The names in the path template, such as `Bucket`, in the order of the groups of `path_pattern`."""
    fixed_parameters: frozenset[tuple[str, str]]
    """Parameters that name the operation, such as `uploads`, with their values."""
    required_names: frozenset[str]
    """Names of headers, in lower case, and of parameters that a request must have."""
    members_by_location: Mapping[str, Mapping[str, tuple[str, Shape]]]
    """Names and shapes of the members by location, such as `header`, and by name in the request."""


@cache
def get_route(operation: OperationModel) -> Route:
    path, _, query = operation.http["requestUri"].partition("?")
    shape = operation.input_shape
    members_by_location: dict[str, dict[str, tuple[str, Shape]]] = {}
    for name, member in (shape.members if shape else {}).items():
        members_by_name = members_by_location.setdefault(member.serialization.get("location", ""), {})
        members_by_name[get_wire_name(name, member)] = name, member
    names = shape.required_members if shape else []
    named_members = {**members_by_location.get("header", {}), **members_by_location.get("querystring", {})}
    required_names = frozenset(wire_name for wire_name, (name, _) in named_members.items() if name in names)
    fixed_parameters = frozenset(parse_qsl(query, keep_blank_values=True))
    return Route(
        operation, operation.http["method"], *_compile_path(path), fixed_parameters, required_names, members_by_location
    )


@cache
def _compile_path(template: str) -> tuple[re.Pattern[str], Sequence[str]]:
    """Return the pattern and the labels of a path such as `/{Bucket}/{Key+}`, whose last label matches slashes, too."""
    parts = re.split(r"\{([^}]+)\}", template)
    labels, texts = parts[1::2], parts[::2]
    groups = ["(.+)" if label.endswith("+") else "([^/]+)" for label in labels]
    pattern = "".join(re.escape(text) + group for text, group in zip(texts, [*groups, ""], strict=True))
    end = "" if pattern.endswith(("(.+)", "/")) else "/?"
    return re.compile(pattern + end), [label.removesuffix("+") for label in labels]


@cache
def _list_routes(service: str) -> Mapping[str, Sequence[Route]]:
    """Return the routes of a service by their HTTP methods."""
    model = load_service_model(service)
    routes = [get_route(model.operation_model(name)) for name in sorted(model.operation_names)]
    addresses = {_get_address(route) for route in routes if not route.operation.deprecated}
    routes_by_method: dict[str, list[Route]] = {}
    for route in routes:
        # A deprecated operation may have the address of the operation that replaced it.
        if not (route.operation.deprecated and _get_address(route) in addresses):
            routes_by_method.setdefault(route.method, []).append(route)
    return routes_by_method


def _get_address(route: Route) -> tuple[object, ...]:
    return route.method, route.path_pattern, route.fixed_parameters


def has_first_segment(service: str, path: str) -> bool:
    """Return whether an operation of a service has a path with the same first segment as `path`."""
    return path.split("/")[1] in _list_first_segments(service)


@cache
def _list_first_segments(service: str) -> frozenset[str]:
    """Return the first segments of the paths of a service's operations."""
    model = load_service_model(service)
    uris = (model.operation_model(name).http["requestUri"] for name in model.operation_names)
    return frozenset(uri.split("/")[1] for uri in uris)


def get_wire_name(name: str, member: Shape) -> str:
    """Return a member's name in requests: a header or prefix of headers (in lower case), a parameter or a label."""
    wire_name: str = member.serialization.get("name", name)
    return wire_name.lower() if member.serialization.get("location") in ("header", "headers") else wire_name


def find_route(service: str, request: Request, codes: RestErrorCodes) -> Route:
    """Return the route of the operation that a request is for.

    Raises:
        ServiceError: no operation has this address, or a required header or parameter is missing.
    """
    path, query = get_target(request)
    parameters = frozenset(parse_query(query, codes) if query else ())
    routes = [route for route in _match_path(service, request.method, path) if route.fixed_parameters <= parameters]
    if not routes:
        message = f"The method {request.method} is not allowed on {decode(path, codes)}."
        raise make_error(codes.unknown_address, message)
    if len(routes) > 1:
        fixed_count = max(len(route.fixed_parameters) for route in routes)
        routes = [route for route in routes if len(route.fixed_parameters) == fixed_count]
    header_names = get_headers(request).keys()
    names = {name for name, _ in parameters} | header_names if query else header_names
    matching_routes = [route for route in routes if route.required_names <= names]
    if not matching_routes:
        missing_names = ", ".join(sorted(routes[0].required_names - names))
        message = f"{routes[0].operation.name} requires these headers or parameters: {missing_names}."
        raise make_error(codes.missing_parameter, message)
    return matching_routes[0] if len(matching_routes) == 1 else max(matching_routes, key=_count_required_names)


def _count_required_names(route: Route) -> int:
    return len(route.required_names)


@lru_cache(maxsize=1024)
def _match_path(service: str, method: str, path: str) -> Sequence[Route]:
    return [route for route in _list_routes(service).get(method, ()) if route.path_pattern.fullmatch(path)]


def parse_query(query: str, codes: RestErrorCodes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict")
    except ValueError:
        raise make_error(codes.malformed_address, f"Couldn't parse the query {query!r}: it is not UTF-8.") from None


def decode(text: str, codes: RestErrorCodes) -> str:
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode()
    except ValueError:
        raise make_error(codes.malformed_address, f"Couldn't parse the URI {text!r}: it is not UTF-8.") from None
