"""Properties of resources: their names in filters, the types of their values, and the values of one resource.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Filter.html
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

from botocore.model import ListShape, MapShape, Shape, StructureShape

from microjobs_orchestrator.local.errors import ValidationError


class ValueType(Enum):
    """The type of a property's values, which determines the operators of filters."""

    TEXT = "a text"
    NUMBER = "a number"
    TIME = "a time"
    BOOLEAN = "true or false"
    TEXT_OR_NUMBER = "a text or a number"
    """The type of a value in a map, such as a hyperparameter: a text that may contain a number."""
    STRUCTURE = "a structure"


_TYPES = {
    "string": ValueType.TEXT,
    **dict.fromkeys(("integer", "long", "float", "double"), ValueType.NUMBER),
    "timestamp": ValueType.TIME,
    "boolean": ValueType.BOOLEAN,
}

TIME_PROPERTIES = ("CreationTime", "LastModifiedTime")
"""Properties that filters can use for all resources, even if the results of Search do not contain these members."""


class LazyResource(ABC):
    """A resource, which may compute a member when the member is read."""

    @abstractmethod
    def get(self, name: str, /) -> Any:
        """Return a member; None if it does not exist."""


Structure = LazyResource | Mapping[str, Any]
"""A resource, or a structure in a resource."""


@dataclass(frozen=True)
class Property:
    """A property of one kind of resource."""

    name: str
    type: ValueType
    read: Callable[[Structure], Sequence[Any]]
    """A function that takes a resource, and returns its values of the property: none if the resource does not have the
    property, several if the property is in a list."""


class _KeyedList(NamedTuple):
    """A list of names and values. Each name is a property."""

    member: str
    """The member of the resource that is the list."""
    name: str
    value: str
    """`name` and `value` are the members of an item that contain the name and the value."""
    type: ValueType


_KEYED_LISTS: Mapping[str, _KeyedList] = {
    "Tags": _KeyedList("Tags", "Key", "Value", ValueType.TEXT),
    "Metrics": _KeyedList("FinalMetricDataList", "MetricName", "Value", ValueType.NUMBER),
}
"""The lists, by the first part of the names of their properties, such as `Tags` in `Tags.team`."""


HYPERPARAMETERS = "HyperParameters"
"""The map whose keys are suggested as properties."""


def list_suggestions(shape: StructureShape, resource: LazyResource) -> Iterator[str]:
    """Yield the names of a resource's properties that `shape` does not have: hyperparameters, tags and metrics."""
    for name, keyed_list in _KEYED_LISTS.items():
        if keyed_list.member in shape.members:
            pairs = _read_path((keyed_list.member,), resource)
            yield from (f"{name}.{pair[keyed_list.name]}" for pair in pairs if keyed_list.name in pair)
    if HYPERPARAMETERS in shape.members:
        yield from (f"{HYPERPARAMETERS}.{key}" for key in resource.get(HYPERPARAMETERS) or ())


def find_property(shape: StructureShape, name: str) -> Property:
    """Return the property with a name such as `InputDataConfig.ChannelName`, `Tags.team` or `Metrics.loss`.

    Raises:
        ValidationError: the resources do not have this property.
    """
    head, _, key = name.partition(".")
    keyed_list = _KEYED_LISTS.get(head)
    if keyed_list and key and keyed_list.member in shape.members:
        return Property(name, keyed_list.type, partial(_read_pair, keyed_list, key))
    if name in TIME_PROPERTIES:
        return Property(name, ValueType.TIME, partial(_read_path, (name,)))
    return find_member(shape, name)


def find_member(shape: StructureShape, name: str) -> Property:
    """Return the property at a path of members; a key of a map may contain dots.

    Raises:
        ValidationError: the resources do not have this property.
    """
    path, target = _resolve(shape, name)
    if isinstance(target, MapShape) and _has_remaining_names(name, path):
        read = partial(_read_path, (*path, _join_remaining_names(name, path)))
        if isinstance(target.value, StructureShape):
            return Property(name, ValueType.TEXT_OR_NUMBER, partial(_read_union, read))
        return Property(name, ValueType.TEXT_OR_NUMBER, read)
    type_name = _unwrap_list(target).type_name
    return Property(name, _TYPES.get(type_name, ValueType.STRUCTURE), partial(_read_path, path))


def find_list(shape: StructureShape, name: str) -> tuple[Property, StructureShape]:
    """Return the property at a path that ends at a list of structures, and the shape of these structures.

    Raises:
        ValidationError: the resources do not have this property, or it is not a list of structures.
    """
    path, target = _resolve(shape, name)
    item = target.member if isinstance(target, ListShape) else None
    if not isinstance(item, StructureShape) or _has_remaining_names(name, path):
        raise ValidationError(f"NestedPropertyName {name!r} is not a list of structures: use Filters instead.")
    return Property(name, ValueType.STRUCTURE, partial(_read_path, path)), item


def _resolve(shape: Shape, name: str) -> tuple[tuple[str, ...], Shape]:
    """Return the members of a path up to its end or its first map, and the shape at that place."""
    names, path, current_shape = name.split("."), list[str](), shape
    for member in names:
        current_shape = _unwrap_list(current_shape)
        if isinstance(current_shape, MapShape):
            return tuple(path), current_shape
        if not isinstance(current_shape, StructureShape) or member not in current_shape.members:
            raise _make_unknown_error(name, path, member, current_shape)
        path.append(member)
        current_shape = current_shape.members[member]
    return tuple(path), current_shape


def _unwrap_list(shape: Shape) -> Shape:
    while isinstance(shape, ListShape):
        shape = shape.member
    return shape


def _has_remaining_names(name: str, path: Sequence[str]) -> bool:
    """Return whether a name continues after the members of a path, for example with the key of a map."""
    return len(path) <= name.count(".")


def _join_remaining_names(name: str, path: Sequence[str]) -> str:
    return name.split(".", len(path))[-1]


def _make_unknown_error(name: str, path: Sequence[str], member: str, shape: Shape) -> ValidationError:
    known_names = list(shape.members) if isinstance(shape, StructureShape) else []
    nearest = get_close_matches(member, known_names, n=1)
    where = ".".join(path) or "the resource"
    hint = f"did you mean {nearest[0]}?" if nearest else f"{where} has: {', '.join(known_names) or 'no members'}"
    return ValidationError(f"Property {name!r} is unknown: {where} has no {member!r} ({hint}).")


# --- values of one resource ---


def _read_path(path: Sequence[str], structure: Structure) -> list[Any]:
    values: list[Any] = [structure]
    for name in path:
        members = (item.get(name) for item in values if isinstance(item, LazyResource | dict))
        values = list(_flatten(member for member in members if member is not None))
    return values


def _read_union(read: Callable[[Structure], Sequence[Any]], structure: Structure) -> list[Any]:
    """Return the only member of each structure as text, such as the NumberValue of a parameter."""
    return [str(value) for union in read(structure) for value in union.values()]


def _flatten(values: Iterator[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _flatten(iter(value))
        else:
            yield value


def _read_pair(keyed_list: _KeyedList, name: str, structure: Structure) -> list[Any]:
    pairs = _read_path((keyed_list.member,), structure)
    return [pair[keyed_list.value] for pair in pairs if pair.get(keyed_list.name) == name and keyed_list.value in pair]
