"""Prints the members of Create requests that the SDK's resource classes cannot express.

A class has no parameter for such a member, or the parameter has another type. The output is a JSON list of
[path, shape, member]. Usage: missing_members_v3.py NOUN...
"""

import inspect
import json
import sys
from collections.abc import Iterator
from importlib import import_module

import botocore.session
from botocore import xform_name
from botocore.model import ListShape, MapShape, Shape, StructureShape

resources = import_module("sagemaker.core.resources")
shapes = import_module("sagemaker.core.shapes.shapes")
service = botocore.session.get_session().get_service_model("sagemaker")


def get_item_shape(shape: Shape) -> Shape:
    """Return the shape of the items of a list or a map; return other shapes unchanged."""
    while isinstance(shape, (ListShape, MapShape)):
        shape = shape.member if isinstance(shape, ListShape) else shape.value
    return shape


def find_missing_in_resource(noun: str) -> Iterator[tuple[list[str], str, str]]:
    parameters = inspect.signature(getattr(resources, noun).create).parameters
    shape = service.operation_model(f"Create{noun}").input_shape
    assert shape is not None
    for name, member in shape.members.items():
        item, parameter = get_item_shape(member), parameters.get(xform_name(name))
        is_structure = isinstance(item, StructureShape) and item.name != "Tag"
        if parameter is None or (is_structure and f"shapes.shapes.{item.name}" not in str(parameter.annotation)):
            yield [f"Create{noun}", name], shape.name, name
        else:
            yield from find_missing_in_shape(item, [f"Create{noun}", name])


def find_missing_in_shape(shape: Shape, path: list[str]) -> Iterator[tuple[list[str], str, str]]:
    if isinstance(shape, StructureShape):
        fields = getattr(shapes, shape.name).model_fields
        for name, member in shape.members.items():
            if xform_name(name) not in fields:
                yield [*path, name], shape.name, name
            elif name not in path:  # some structures contain themselves
                yield from find_missing_in_shape(get_item_shape(member), [*path, name])


print(json.dumps([member for noun in sys.argv[1:] for member in find_missing_in_resource(noun)]))
