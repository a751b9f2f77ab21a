"""Requests as a program for version 3 of the SageMaker Python SDK: its resource classes have the members of the API."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from botocore import xform_name
from botocore.model import ListShape, MapShape, Shape, StructureShape

from microjobs_orchestrator.local.console.code.clients import format_member, make_client_call
from microjobs_orchestrator.local.console.code.expressions import Call, Statement, format_program
from microjobs_orchestrator.local.console.code.requests import CreateRequest

RESOURCES = "sagemaker.core.resources"
SHAPES = "sagemaker.core.shapes.shapes"
"""The package `sagemaker.core.shapes` replaces some of these classes by those of model cards."""
SHADOWED_CLASSES = ("Tag",)
"""Some resource classes expect another class of this name. All of them accept a dictionary."""
MISSING_KINDS = ("PipelineExecution",)
"""Resources that the SDK's classes cannot create."""
MISSING_MEMBERS = {
    ("CreateModelPackageInput", "InferenceSpecification"),  # ModelPackage expects the class of model cards
    ("CreatePipelineRequest", "PipelineVersionAliases"),
}
"""Members that the server honours and that the SDK's classes lack, with the names of their shapes."""
SESSION = Statement(Call("Session", module="sagemaker.core.helper.session_helper"), "session")


def format_sdk_v3(requests: Sequence[CreateRequest]) -> str:
    """Return a Python program. A resource that the SDK's classes cannot create is created with the SDK's client."""
    missing = [_find_missing(request) for request in requests]
    statements = [_make_statement(request, names) for request, names in zip(requests, missing, strict=True)]
    return format_program([*([SESSION] if any(missing) else []), *statements])


def _find_missing(request: CreateRequest) -> list[str]:
    if request.kind.noun in MISSING_KINDS:
        return [request.operation]
    return sorted(set(_find_missing_members(request.shape, request.members)))


def _find_missing_members(shape: Shape, value: Any) -> Iterator[str]:
    if isinstance(shape, StructureShape):
        for name, item in value.items():
            if (shape.name, name) in MISSING_MEMBERS:
                yield name
            else:
                yield from _find_missing_members(shape.members[name], item)
    elif isinstance(shape, (ListShape, MapShape)):
        item_shape = shape.member if isinstance(shape, ListShape) else shape.value
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _find_missing_members(item_shape, item)


def _make_statement(request: CreateRequest, missing: Sequence[str]) -> Statement:
    if missing:
        comment = f"The resource classes of the SDK have no {', '.join(missing)}."
        return make_client_call(request, "session.sagemaker_client", comment)
    required = [name for name in request.tokens if name in request.shape.required_members]
    tokens = {xform_name(name): Call("str", positional=[Call("uuid.uuid4", module="uuid")]) for name in required}
    arguments = {**_make_arguments(request.shape, request.members), **tokens}
    return Statement(Call(f"{request.kind.noun}.create", arguments, module=RESOURCES))


def _make_arguments(shape: StructureShape, members: Mapping[str, Any]) -> dict[str, Any]:
    return {
        xform_name(name): _make_value(shape.members[name], format_member(name, value))
        for name, value in members.items()
    }


def _make_value(shape: Shape, value: Any) -> Any:
    if isinstance(shape, StructureShape):
        arguments = _make_arguments(shape, value)
        return arguments if shape.name in SHADOWED_CLASSES else Call(shape.name, arguments, module=SHAPES)
    if isinstance(shape, ListShape):
        return [_make_value(shape.member, item) for item in value]
    if isinstance(shape, MapShape):
        return {name: _make_value(shape.value, item) for name, item in value.items()}
    return value
