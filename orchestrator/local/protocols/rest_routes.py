"""Addresses of REST protocols: which operation a method, a path and a query string are for."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from urllib.parse import parse_qsl, unquote_to_bytes

from botocore.model import OperationModel, Shape
from werkzeug import Request

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.http import get_headers, get_target
from microjobs_orchestrator.local.protocols.models import service_model


@dataclass(frozen=True)
class Codes:
    """Error codes and HTTP statuses of a REST protocol."""

    unknown_address: tuple[str, int]
    """No operation has the method and the path."""
    incomplete: tuple[str, int]
    """A header or parameter that the operation requires is missing."""
    malformed_address: tuple[str, int]
    """The path or the query string is not percent-encoded UTF-8."""
    malformed_value: tuple[str, int]
    """A value is not of its type, or a parameter is repeated."""
    unknown_parameter: tuple[str, int]
    """The query string has a parameter that the operation does not have."""


def make_error(code: tuple[str, int], message: str) -> ServiceError:
    return ServiceError(code[0], message, code[1])


@dataclass(frozen=True)
class PathTemplate:
    """A path such as `/{Bucket}/{Key+}`, whose last label takes all that follows."""

    pattern: re.Pattern[str]
    labels: tuple[str, ...]

    @staticmethod
    @cache
    def parse(template: str) -> "PathTemplate":
        parts = re.split(r"\{([^}]+)\}", template)
        labels, texts = parts[1::2], parts[::2]
        groups = ["(.+)" if label.endswith("+") else "([^/]+)" for label in labels]
        pattern = "".join(re.escape(text) + group for text, group in zip(texts, [*groups, ""], strict=True))
        end = "" if pattern.endswith(("(.+)", "/")) else "/?"
        return PathTemplate(re.compile(pattern + end), tuple(label.removesuffix("+") for label in labels))

    def matches(self, path: str) -> bool:
        return self.pattern.fullmatch(path) is not None

    def read_labels(self, path: str) -> Mapping[str, str]:
        """Return the percent-encoded labels of a path; none if the path has another form."""
        match = self.pattern.fullmatch(path)
        return dict(zip(self.labels, match.groups(), strict=True)) if match else {}


@dataclass(frozen=True)
class Route:
    """What a request must have to be for an operation."""

    operation: OperationModel
    method: str
    path: PathTemplate
    literals: Mapping[str, str]
    """Parameters that name the operation, such as `uploads`."""
    required: frozenset[str]
    """Names of headers, in lower case, and of parameters."""


@cache
def _routes(service: str) -> Mapping[str, Sequence[Route]]:
    """Return the routes of a service by their HTTP methods."""
    model = service_model(service)
    routes = [_route(model.operation_model(name)) for name in sorted(model.operation_names)]
    addresses = {_address(route) for route in routes if not route.operation.deprecated}
    # A deprecated operation may have the address of the operation that replaced it.
    kept = [route for route in routes if not (route.operation.deprecated and _address(route) in addresses)]
    return {method: [route for route in kept if route.method == method] for method in {route.method for route in kept}}


def _address(route: Route) -> tuple[object, ...]:
    return route.method, route.path, *sorted(route.literals.items())


def _route(operation: OperationModel) -> Route:
    path, _, query = operation.http["requestUri"].partition("?")
    shape = operation.input_shape
    required = [(name, shape.members[name]) for name in shape.required_members] if shape else []
    names = frozenset(wire_name(name, member) for name, member in required if _is_header_or_parameter(member))
    literals = dict(parse_qsl(query, keep_blank_values=True))
    return Route(operation, operation.http["method"], PathTemplate.parse(path), literals, names)


@cache
def _first_segments(service: str) -> frozenset[str]:
    model = service_model(service)
    uris = (model.operation_model(name).http["requestUri"] for name in model.operation_names)
    return frozenset(uri.partition("?")[0].split("/")[1] for uri in uris)


def has_path(service: str, path: str) -> bool:
    """Return whether a service has paths with the first segment of this one."""
    return path.split("/")[1] in _first_segments(service)


def _is_header_or_parameter(member: Shape) -> bool:
    return member.serialization.get("location") in ("header", "querystring")


def wire_name(name: str, member: Shape) -> str:
    """Return the header (in lower case), parameter or label of a member."""
    wire: str = member.serialization.get("name", name)
    return wire.lower() if member.serialization.get("location") == "header" else wire


def find_route(service: str, request: Request, codes: Codes) -> Route:
    """Return the route of the operation that a request is for.

    Raises:
        ServiceError: no operation has this address, or a required header or parameter is missing.
    """
    path, query = get_target(request)
    parameters = dict(parse_query(query, codes)) if query else {}
    routes = [
        route
        for route in _routes(service).get(request.method, ())
        if _has_literals(route, parameters) and route.path.matches(path)
    ]
    if not routes:
        message = f"The method {request.method} is not allowed on {decode(path, codes)}."
        raise make_error(codes.unknown_address, message)
    most = max(len(route.literals) for route in routes)
    return _choose([route for route in routes if len(route.literals) == most], request, parameters, codes)


def _has_literals(route: Route, parameters: Mapping[str, str]) -> bool:
    return not route.literals or (bool(parameters) and route.literals.items() <= parameters.items())


def _choose(routes: Sequence[Route], request: Request, parameters: Mapping[str, str], codes: Codes) -> Route:
    """Return the route with the most required headers and parameters, of those that the request has all of."""
    available = parameters.keys() | get_headers(request).keys()
    complete = [route for route in routes if route.required <= available]
    if not complete:
        missing = ", ".join(sorted(routes[0].required - available))
        raise make_error(codes.incomplete, f"{routes[0].operation.name} needs {missing}.")
    return max(complete, key=lambda route: len(route.required))


def parse_query(query: str, codes: Codes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict")
    except ValueError:
        raise make_error(codes.malformed_address, f"Couldn't parse the query {query!r}: it is not UTF-8.") from None


def decode(text: str, codes: Codes) -> str:
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode()
    except ValueError:
        raise make_error(codes.malformed_address, f"Couldn't parse the URI {text!r}: it is not UTF-8.") from None
