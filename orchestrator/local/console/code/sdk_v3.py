"""Requests as a program for version 3 of the SageMaker Python SDK, whose resource classes have the members of the
API."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from botocore import xform_name
from botocore.model import ListShape, MapShape, Shape, StructureShape

from microjobs_orchestrator.local.console.code.clients import format_member, make_client_call
from microjobs_orchestrator.local.console.code.expressions import Call, Statement, format_program
from microjobs_orchestrator.local.console.code.requests import CreateRequest

RESOURCES = "sagemaker.core.resources"
SHAPES = "sagemaker.core.shapes.shapes"
"""The module with the classes of structures. Programs import them from this module, because the package
`sagemaker.core.shapes` exports classes of model cards under some of the same names."""
AMBIGUOUS_CLASSES = ("Tag",)
"""Names that several classes of structures share. Some resource classes expect one of the classes, some expect another
one. All resource classes accept a dictionary instead."""
UNSUPPORTED_KINDS = ("PipelineExecution",)
"""The nouns of the kinds of resources that the SDK's classes cannot create."""
UNSUPPORTED_MEMBERS = {
    # ModelPackage expects the class of model cards for this member
    ("CreateModelPackageInput", "InferenceSpecification"),
    ("CreatePipelineRequest", "PipelineVersionAliases"),
}
"""Members that the server honours but that the SDK's classes cannot express: the name of the shape, and the member."""
SESSION = Statement(Call("Session", module="sagemaker.core.helper.session_helper"), "session")


def format_sdk_v3(requests: Sequence[CreateRequest]) -> str:
    """Return a Python program. A resource that the SDK's classes cannot create is created with the SDK's client."""
    unsupported_names = [_find_unsupported_names(request) for request in requests]
    statements = [_make_statement(request, names) for request, names in zip(requests, unsupported_names, strict=True)]
    return format_program([*([SESSION] if any(unsupported_names) else []), *statements])


def _find_unsupported_names(request: CreateRequest) -> list[str]:
    """Return the members that the SDK's classes cannot express, or the operation if they cannot create the resource."""
    if request.kind.noun in UNSUPPORTED_KINDS:
        return [request.operation]
    return sorted(set(_find_unsupported_members(request.shape, request.members)))


def _find_unsupported_members(shape: Shape, value: Any) -> Iterator[str]:
    if isinstance(shape, StructureShape):
        for name, item in value.items():
            if (shape.name, name) in UNSUPPORTED_MEMBERS:
                yield name
            else:
                yield from _find_unsupported_members(shape.members[name], item)
    elif isinstance(shape, (ListShape, MapShape)):
        item_shape = shape.member if isinstance(shape, ListShape) else shape.value
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _find_unsupported_members(item_shape, item)


def _make_statement(request: CreateRequest, unsupported_names: Sequence[str]) -> Statement:
    if unsupported_names:
        comment = f"The resource classes of the SDK do not support {', '.join(unsupported_names)}."
        return make_client_call(request, "session.sagemaker_client", comment)
    names = [name for name in request.idempotency_members if name in request.shape.required_members]
    token_arguments = {
        xform_name(name): Call("str", positional_arguments=[Call("uuid.uuid4", module="uuid")]) for name in names
    }
    arguments = {**_make_arguments(request.shape, request.members), **token_arguments}
    return Statement(Call(f"{request.kind.noun}.create", arguments, module=RESOURCES))


def _make_arguments(shape: StructureShape, members: Mapping[str, Any]) -> dict[str, Any]:
    return {
        xform_name(name): _make_value(shape.members[name], format_member(name, value))
        for name, value in members.items()
    }


def _make_value(shape: Shape, value: Any) -> Any:
    if isinstance(shape, StructureShape):
        arguments = _make_arguments(shape, value)
        return arguments if shape.name in AMBIGUOUS_CLASSES else Call(shape.name, arguments, module=SHAPES)
    if isinstance(shape, ListShape):
        return [_make_value(shape.member, item) for item in value]
    if isinstance(shape, MapShape):
        return {name: _make_value(shape.value, item) for name, item in value.items()}
    return value
