"""Expressions: Get, Std:Join and Std:JsonGet.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-properties.html, and the SageMaker SDKs.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from microjobs_orchestrator.local.resources.pipelines.definition.messages import get_type_name, make_name_hint, quote
from microjobs_orchestrator.local.resources.pipelines.definition.values import Scalar

Path = tuple[str | int, ...]
"""Names of members and keys, and indexes of items."""


class ExpressionError(Exception):
    """An expression is not valid, or its value does not exist."""


class ReferenceSource(StrEnum):
    """The first part of a Get expression. It states what contains the value."""

    PARAMETER = "Parameters"
    VARIABLE = "Execution"
    STEP = "Steps"
    ITEM = "ForEach"
    """The current item of the ForEach step whose body contains the step with the expression."""
    ITERATION = "IterationOutput"
    """An output of a step in the body of a ForEach step. Only the Selector of the ForEach step may read it."""
    EXPERIMENT = "PipelineExperimentConfig"


@dataclass(frozen=True)
class Reference:
    """The value that a Get expression reads."""

    source: ReferenceSource
    name: str
    """The name of the parameter, the variable, the step, or the member of PipelineExperimentConfig; for an item of a
    ForEach step, `CurrentItem`."""
    path: Path = ()

    def __str__(self) -> str:
        return f"{self.source}.{self.name}{format_path(self.path)}"


class Scope(Protocol):
    """The values that expressions can read. Each method raises ExpressionError if a value does not exist."""

    def read_parameter(self, name: str) -> Scalar: ...

    def read_variable(self, name: str) -> str: ...

    def read_property(self, step_name: str, path: Path) -> Any:
        """Return a property of a step. `select` finds it in the response of the step's Describe operation."""

    def read_property_file(self, step_name: str, file_name: str) -> Any:
        """Return the parsed content of a property file."""

    def read_json_object(self, uri: str) -> Any:
        """Return the parsed content of a JSON object in S3."""

    def read_loop_item(self, path: Path) -> Any: ...

    def read_iteration_output(self, step_name: str, path: Path) -> Any: ...

    def read_experiment(self, name: str) -> str:
        """Return a name in the PipelineExperimentConfig. `name` is `ExperimentName` or `TrialName`."""


# --- paths ---

_PART = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,9})\]|\['([^']*)'\]|\["([^"]*)"\]""")


def parse_path(text: str) -> Path:
    """Parse a path such as `a.b[0]['c']`. Raise ExpressionError if it is not valid."""
    text = text.removeprefix("$")
    path_text = text if not text or text[0] in ".[" else f".{text}"
    parts: list[str | int] = []
    position = 0
    while position < len(path_text):
        match = _PART.match(path_text, position)
        if match is None:
            raise ExpressionError(
                f"{quote(path_text[position:])} in the path {quote(text)} must be one of .name, [0] and ['name']"
            )
        name, index, single_quoted, double_quoted = match.groups()
        parts.append(
            int(index) if index is not None else next(p for p in (name, single_quoted, double_quoted) if p is not None)
        )
        position = match.end()
    return tuple(parts)


def format_path(path: Path) -> str:
    """Return a path as text that `parse_path` accepts. It begins with a dot or a bracket."""
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" if re.fullmatch(r"\w+", part) else f"['{part}']"
        for part in path
    )


def select(value: Any, path: Path) -> Any:
    """Return a part of a value. In a list, a name such as `a` selects the item with a member such as `OutputName: a`.

    Raises:
        ExpressionError: the value lacks the part.
    """
    for position, part in enumerate(path):
        value = _select_part(value, part, path[: position + 1])
    return value


def _select_part(value: Any, part: str | int, path: Path) -> Any:
    """Return one part of a value. `path` is the path up to and including the part, for error messages."""
    if isinstance(value, dict) and part in value:
        return value[part]
    if isinstance(value, list):
        if isinstance(part, int):
            if part < len(value):
                return value[part]
            raise ExpressionError(f"{format_path(path)} does not exist: the list has {len(value)} items")
        items = {_find_name(item): item for item in value if isinstance(item, dict)}
        if part in items:
            return items[part]
        raise ExpressionError(f"{format_path(path)} does not exist ({make_name_hint(part, filter(None, items))})")
    if isinstance(value, dict):
        raise ExpressionError(f"{format_path(path)} does not exist ({make_name_hint(str(part), value)})")
    raise ExpressionError(f"{format_path(path)} does not exist: the value before it is {get_type_name(value)}")


def _find_name(item: Mapping[str, Any]) -> str:
    """Return the name of a list's item, such as its OutputName or ChannelName; empty if it has none."""
    return next((value for member, value in item.items() if member.endswith("Name") and isinstance(value, str)), "")


# --- references ---


def parse_reference(text: Any) -> Reference:
    """Parse the text of a Get expression. Raise ExpressionError if it is not valid."""
    if not isinstance(text, str):
        raise ExpressionError(f"Get must have a String, not {get_type_name(text)}")
    source, dot, remaining_text = text.partition(".")
    if source not in tuple(ReferenceSource) or not dot:
        raise ExpressionError(f"{quote(text)} must begin with one of {', '.join(f'{s}.' for s in ReferenceSource)}")
    name, path = _split_name(remaining_text)
    reference = Reference(ReferenceSource(source), name, path)
    _check_reference(reference, text)
    return reference


def _split_name(text: str) -> tuple[str, Path]:
    name = re.match(r"[^.\[\]]*", text)
    assert name is not None  # noqa: S101  the pattern also matches empty text
    return name[0], parse_path(text[name.end() :])


def _check_reference(reference: Reference, text: str) -> None:
    has_path = reference.source in (ReferenceSource.STEP, ReferenceSource.ITERATION)
    if not reference.name:
        raise ExpressionError(f"{quote(text)} lacks the name after {reference.source}")
    if has_path and not reference.path:
        raise ExpressionError(f"{quote(text)} lacks the property after the step's name")
    if reference.source is ReferenceSource.ITEM and reference.name != "CurrentItem":
        raise ExpressionError(f"{quote(text)} is unknown: did you mean ForEach.CurrentItem?")
    if not has_path and reference.source is not ReferenceSource.ITEM and reference.path:
        raise ExpressionError(f"{quote(text)} has a path, but {reference.source} values have no members")


def find_references(value: Any) -> Iterator[Reference]:
    """Yield the references in a value's expressions.

    For a property file, the reference is its Processing step with the path `PropertyFiles.<name>`.

    Raises:
        ExpressionError: an expression is not valid.
    """
    if is_expression(value):
        ((function, argument),) = value.items()
        yield from _REFERENCE_FINDERS[function](argument)
    elif isinstance(value, dict):
        for content in value.values():
            yield from find_references(content)
    elif isinstance(value, list):
        for item in value:
            yield from find_references(item)


def locate_expressions(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the outermost expressions in a value, each with its path, such as `Environment.NAME`."""
    if is_expression(value):
        yield path, value
    elif isinstance(value, dict):
        for name, content in value.items():
            yield from locate_expressions(content, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from locate_expressions(item, f"{path}[{index}]")


def is_expression(value: Any) -> bool:
    """Return whether a value is an expression.

    Raises:
        ExpressionError: the value uses a function that does not exist, or mixes a function with other members.
    """
    if not isinstance(value, dict):
        return False
    if len(value) == 1 and next(iter(value)) in _REFERENCE_FINDERS:
        return True
    function = next((name for name in value if name.startswith("Std:")), None)
    if function is None:
        return False
    if function in _REFERENCE_FINDERS:
        raise ExpressionError(f"{function} must be the only member of its object")
    raise ExpressionError(f"function {quote(function)} does not exist ({make_name_hint(function, _REFERENCE_FINDERS)})")


def _find_get(argument: Any) -> Iterator[Reference]:
    yield parse_reference(argument)


def _find_join(argument: Any) -> Iterator[Reference]:
    _, values = _read_join(argument)
    return find_references(values)


def _find_json_get(argument: Any) -> Iterator[Reference]:
    source, _ = _read_json_get(argument)
    return iter([source]) if isinstance(source, Reference) else find_references(source)


def _read_join(argument: Any) -> tuple[str, list[Any]]:
    """Return the separator and the values of a Std:Join."""
    _check_members("Std:Join", argument, {"On", "Values"}, {"Values"})
    separator, values = argument.get("On", ""), argument["Values"]
    if not isinstance(separator, str) or not isinstance(values, list):
        raise ExpressionError("Std:Join needs a String as On, and an array as Values")
    return separator, values


def _read_json_get(argument: Any) -> tuple[Any, Path]:
    """Return the source and the path of a Std:JsonGet. The source is the reference to a property file, or an S3 URI,
    which may be an expression."""
    _check_members("Std:JsonGet", argument, {"PropertyFile", "S3Uri", "Path"}, {"Path"})
    if not isinstance(argument["Path"], str):
        raise ExpressionError(f"Std:JsonGet needs a String as Path, not {get_type_name(argument['Path'])}")
    path = parse_path(argument["Path"])
    if ("PropertyFile" in argument) == ("S3Uri" in argument):
        raise ExpressionError("Std:JsonGet needs either PropertyFile or S3Uri")
    if "S3Uri" in argument:
        return argument["S3Uri"], path
    file = argument["PropertyFile"]
    reference = parse_reference(file.get("Get") if isinstance(file, dict) else file)
    if reference.source is not ReferenceSource.STEP or len(reference.path) != 2 or reference.path[0] != "PropertyFiles":
        raise ExpressionError(f"PropertyFile of Std:JsonGet must be Steps.<step>.PropertyFiles.<name>, not {reference}")
    return reference, path


def _check_members(function: str, argument: Any, known_members: set[str], required_members: set[str]) -> None:
    if not isinstance(argument, dict):
        raise ExpressionError(f"{function} must have an object, not {get_type_name(argument)}")
    for name in argument:
        if name not in known_members:
            raise ExpressionError(
                f"{function} has no member {quote(name)} ({make_name_hint(name, sorted(known_members))})"
            )
    for name in sorted(required_members - argument.keys()):
        raise ExpressionError(f"{function} lacks the member {name}")


_REFERENCE_FINDERS: Mapping[str, Callable[[Any], Iterator[Reference]]] = {
    "Get": _find_get,
    "Std:Join": _find_join,
    "Std:JsonGet": _find_json_get,
}


# --- values ---


def resolve(value: Any, scope: Scope) -> Any:
    """Return a copy of a value that contains the results of expressions in place of the expressions.

    A result keeps its type: for example, a number is not converted to text.

    Raises:
        ExpressionError: a value does not exist.
    """
    if is_expression(value):
        ((function, argument),) = value.items()
        return _RESOLVERS[function](argument, scope)
    if isinstance(value, dict):
        return {name: resolve(content, scope) for name, content in value.items()}
    if isinstance(value, list):
        return [resolve(item, scope) for item in value]
    return value


def _resolve_get(argument: Any, scope: Scope) -> Any:
    return _READERS[(reference := parse_reference(argument)).source](reference, scope)


_READERS: Mapping[ReferenceSource, Callable[[Reference, Scope], Any]] = {
    ReferenceSource.PARAMETER: lambda reference, scope: scope.read_parameter(reference.name),
    ReferenceSource.VARIABLE: lambda reference, scope: scope.read_variable(reference.name),
    ReferenceSource.STEP: lambda reference, scope: scope.read_property(reference.name, reference.path),
    ReferenceSource.ITEM: lambda reference, scope: scope.read_loop_item(reference.path),
    ReferenceSource.ITERATION: lambda reference, scope: scope.read_iteration_output(reference.name, reference.path),
    ReferenceSource.EXPERIMENT: lambda reference, scope: scope.read_experiment(reference.name),
}


def _resolve_join(argument: Any, scope: Scope) -> str:
    separator, values = _read_join(argument)
    return separator.join(to_text(resolve(value, scope)) for value in values)


def _resolve_json_get(argument: Any, scope: Scope) -> Any:
    source, path = _read_json_get(argument)
    if isinstance(source, Reference):
        return select(scope.read_property_file(source.name, str(source.path[1])), path)
    uri = resolve(source, scope)
    if not isinstance(uri, str):
        raise ExpressionError(f"S3Uri of Std:JsonGet must be a String, not {get_type_name(uri)}")
    return select(scope.read_json_object(uri), path)


_RESOLVERS: Mapping[str, Callable[[Any, Scope], Any]] = {
    "Get": _resolve_get,
    "Std:Join": _resolve_join,
    "Std:JsonGet": _resolve_json_get,
}


def to_text(value: Any) -> str:
    """Return a value as text, as Std:Join does: a Boolean becomes `true` or `false`."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise ExpressionError(f"Std:Join cannot join {get_type_name(value)}: {quote(value)}")
