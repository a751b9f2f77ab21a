"""Formats Python programs from calls and their arguments."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_LINE_CHARACTERS = 88
INDENT = "    "


@dataclass(frozen=True)
class Name:
    """The name of a variable."""

    text: str


@dataclass(frozen=True)
class Call:
    """A call of a function or a class."""

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    positional_arguments: Sequence[Any] = ()
    module: str = ""
    """The module from which the program imports the function; empty for a method of a variable."""


@dataclass(frozen=True)
class Statement:
    """A call, and the variable that gets its result."""

    call: Call
    variable: str = ""
    comment: str = ""


def make_json_call(value: Any) -> Call:
    """Return a call of `json.dumps`, which makes JSON text from a value."""
    return Call("json.dumps", positional_arguments=[value], module="json")


def format_program(statements: Sequence[Statement]) -> str:
    """Return the text of a program, with its imports."""
    calls = [call for statement in statements for call in _find_calls(statement.call)]
    # a function such as `json.dumps` needs the import of its module, other functions are imported by their names
    modules = sorted({call.module for call in calls if call.function.startswith(f"{call.module}.") and call.module})
    names = {
        (call.module, call.function.partition(".")[0]) for call in calls if call.module and call.module not in modules
    }
    imports = [f"import {module}" for module in modules]
    for module in sorted({module for module, _ in names}):
        functions = sorted(function for function_module, function in names if function_module == module)
        imports.append(_format_import(module, functions))
    return "\n".join([*imports, *map(_format_statement, statements), ""])


def _format_import(module: str, names: Sequence[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= MAX_LINE_CHARACTERS:
        return line
    lines = "".join(f"{INDENT}{name},\n" for name in names)
    return f"from {module} import (\n{lines})"


def _format_statement(statement: Statement) -> str:
    target = f"{statement.variable} = " if statement.variable else ""
    comment = "".join(f"# {line}\n" for line in statement.comment.splitlines())
    return f"\n{comment}{target}{format_value(statement.call, '', len(target))}"


def format_value(value: Any, indent: str = "", offset: int = 0) -> str:
    """Return the text of an expression, on one line if it fits, else with one line per item.

    Args:
        indent: the indentation of the line on which the text begins.
        offset: the number of other characters on this line, before the text and after it.
    """
    opening, items, closing = _split(value)
    if not items:
        return opening + closing
    line = f"{opening}{', '.join(f'{prefix}{format_value(item)}' for prefix, item in items)}{closing}"
    if len(indent) + offset + len(line) <= MAX_LINE_CHARACTERS and "\n" not in line:
        return line
    item_indent = indent + INDENT
    lines = [f"{item_indent}{prefix}{format_value(item, item_indent, len(prefix) + 1)},\n" for prefix, item in items]
    return f"{opening}\n{''.join(lines)}{indent}{closing}"


def _split(value: Any) -> tuple[str, Sequence[tuple[str, Any]], str]:
    """Return the opening text, such as `f(`, the items with their prefixes, such as `x=`, and the closing text."""
    if isinstance(value, Call):
        keywords = [(f"{name}=", item) for name, item in value.arguments.items()]
        return f"{value.function}(", [*(("", item) for item in value.positional_arguments), *keywords], ")"
    if isinstance(value, Mapping):
        return "{", [(f"{_format_scalar(name)}: ", item) for name, item in value.items()], "}"
    if isinstance(value, (list, tuple)):
        return "[", [("", item) for item in value], "]"
    return _format_scalar(value), (), ""


def _format_scalar(value: Any) -> str:
    """Return the text of a value without items. A string in JSON is also a string literal in Python."""
    if isinstance(value, str):
        return "".join(map(_escape, json.dumps(value, ensure_ascii=False)))
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return value.text if isinstance(value, Name) else repr(value)


def _escape(character: str) -> str:
    """Return an escape sequence for a character that editors and browsers would not show."""
    number = ord(character)
    return character if character.isprintable() else f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"


def _find_calls(value: Any) -> Iterator[Call]:
    if isinstance(value, Call):
        yield value
        yield from _find_calls_in_items((*value.positional_arguments, *value.arguments.values()))
    elif isinstance(value, Mapping):
        yield from _find_calls_in_items(value.values())
    elif isinstance(value, (list, tuple)):
        yield from _find_calls_in_items(value)


def _find_calls_in_items(values: Iterable[Any]) -> Iterator[Call]:
    for value in values:
        yield from _find_calls(value)
