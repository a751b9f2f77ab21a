"""Example requests, one module per resource family, for tests that run every kind of resource on a real server.

The modules are discovered. Each has the name of its family's folder, and a value `EXAMPLES`.
"""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from botocore import xform_name
from botocore.model import ListShape, MapShape, Shape, StructureShape

from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.kinds import Kind
from microjobs_orchestrator.local.protocols.models import load_operation_model
from tests.local.clients import LocalServer


@dataclass(frozen=True)
class Example:
    """A request that creates a resource on a server with either runtime."""

    kind: Kind
    make_request: Callable[[LocalServer, str], dict[str, Any]]
    """A function that returns the members of the Create request for a resource name. It may store the objects that the
    request reads. Hosts should run for about a second, and write objects only below the key `<name>/`."""
    required_kinds: tuple[Kind, ...] = ()
    """The kinds of resources that the request names. They are created first, with the same resource name."""
    make_arn: Callable[[str], str] | None = None
    """A function that returns the ARN for a resource name. Only kinds whose resources are parts of other resources need
    it, because requests identify a part by its ARN."""


def find_example(kind: Kind) -> Example:
    """Return the example of a kind.

    Raises:
        LookupError: no module has an example of the kind.
    """
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        for example in import_module(module.name).EXAMPLES:
            if example.kind is kind:
                return example  # type: ignore[no-any-return]  # mypy does not know the types of an imported module
    raise LookupError(
        f"kind {kind.arn_type} has no example request: add an Example to EXAMPLES in tests/local/resources/examples/ "
        "(one module per family, see docs/maintaining/adding-a-resource.md)"
    )


def create_example(server: LocalServer, kind: Kind, name: str) -> None:
    """Create the example of a kind. First, create the resources that the example requires."""
    example = find_example(kind)
    for required_kind in example.required_kinds:
        create_example(server, required_kind, name)
    call(server, kind, "Create", name, **example.make_request(server, name))


def call(server: LocalServer, kind: Kind, verb: str, name: str, **members: Any) -> dict[str, Any]:
    """Send a request about one resource; return the response."""
    operation = getattr(server.sagemaker, xform_name(kind.operations[verb]))
    response: dict[str, Any] = operation(**{**_identify(kind, verb, name), **members})
    return response


def _identify(kind: Kind, verb: str, name: str) -> dict[str, str]:
    """Return the member that identifies a resource.

    A Create request for a part of another resource has no such member, because the server chooses the part's name.
    """
    if kind.parent is None:
        return make_identifier(kind, name) if verb != "Create" else {kind.name_member: name}
    make_arn = find_example(kind).make_arn
    assert make_arn is not None, f"the example of {kind.arn_type} needs make_arn"
    return {} if verb == "Create" else {kind.identifier_member: make_arn(name)}


def make_identifier(kind: Kind, name: str) -> dict[str, str]:
    """Return the member by which requests identify a resource whose name the client has chosen."""
    return {kind.identifier_member: format_arn(f"{kind.arn_type}/{name}") if kind.is_identified_by_arn else name}


def make_required_members(kind: Kind) -> dict[str, Any]:
    """Return the smallest request that botocore's model allows for the Create operation of a kind."""
    shape = load_operation_model("sagemaker", kind.operations["Create"]).input_shape
    return dict(make_smallest_value(shape or StructureShape("Empty", {"members": {}})))


def make_smallest_value(shape: Shape) -> Any:
    """Return the smallest value of a shape that has all required members."""
    if isinstance(shape, StructureShape):
        return {name: make_smallest_value(shape.members[name]) for name in shape.required_members}
    if isinstance(shape, ListShape):
        return [make_smallest_value(shape.member)]
    if isinstance(shape, MapShape):
        return {}
    return {"string": (shape.metadata.get("enum") or ["x"])[0], "boolean": False}.get(shape.type_name, 1)
