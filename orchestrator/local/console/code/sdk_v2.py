"""Requests as a program for version 2 of the SageMaker Python SDK: its classes, if they express the whole request.

The tables are in `sdk_v2_jobs.py` and `sdk_v2_tables.py`. A member that no argument expresses, or that the SDK would
add, makes the program send the request with the SDK's client instead.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Protocol

from microjobs_orchestrator.local.console.code.clients import make_client_call
from microjobs_orchestrator.local.console.code.expressions import Call, Statement, format_program
from microjobs_orchestrator.local.console.code.requests import CreateRequest

SESSION = Statement(Call("Session", module="sagemaker"), "session")


class Members:
    """The members of a request that no argument has expressed yet. Paths have dots between the members."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = deepcopy(dict(members))

    def get(self, path: str) -> Any:
        """Return a value; None if the request does not have the member."""
        value: Any = self._members
        for name in path.split("."):
            if not isinstance(value, Mapping) or name not in value:
                return None
            value = value[name]
        return value

    def take(self, path: str) -> Any:
        """Return a value like `get`, and remove it, with the structures that it leaves empty."""
        if (value := self.get(path)) is not None:
            parent, _, name = path.rpartition(".")
            structure = self.get(parent) if parent else self._members
            del structure[name]
            if parent and not structure:
                self.take(parent)
        return value

    def list_paths(self) -> list[str]:
        return list(_list_paths(self._members))


def _list_paths(value: Any, path: str = "") -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield path
        return
    for name, item in value.items():
        yield from _list_paths(item, f"{path}.{name}" if path else name)


class Source(Protocol):
    """The part of a request that an argument expresses."""

    def read(self, members: Members) -> Any:
        """Take the members from the request; return the argument, or None if there is none."""


@dataclass(frozen=True)
class Member:
    """A member whose value is the argument."""

    path: str

    def read(self, members: Members) -> Any:
        return members.take(self.path)


@dataclass(frozen=True)
class Choice:
    """A member whose argument accepts only some of its values."""

    path: str
    values: Mapping[Any, Any]
    default: Any = None

    def read(self, members: Members) -> Any:
        if members.get(self.path) not in self.values:
            return self.default
        return self.values[members.take(self.path)]


@dataclass(frozen=True)
class Constant:
    """An argument that does not depend on the request."""

    value: Any

    def read(self, _: Members, /) -> Any:
        return self.value


@dataclass(frozen=True)
class New:
    """A call of a function or a class. It has the arguments whose members the request has."""

    function: str
    arguments: Mapping[str, Source]
    module: str = ""
    required: Collection[str] = ()
    """Members for which the SDK would send a default value of its own."""

    def read(self, members: Members) -> Call | None:
        arguments = {name: source.read(members) for name, source in self.arguments.items()}
        found = {name: value for name, value in arguments.items() if value is not None}
        return Call(self.function, found, module=self.module) if found else None


@dataclass(frozen=True)
class Each:
    """A list of structures. With a key, the argument is a dictionary by this member of the structures."""

    path: str
    item: New
    key: str = ""

    def read(self, members: Members) -> Any:
        items = [Members(value) for value in members.get(self.path) or []]
        keys = [item.take(self.key) for item in items] if self.key else []
        calls = [self.item.read(item) for item in items]
        if any(item.list_paths() for item in items) or len(set(keys)) != len(keys):
            return None  # the member remains: no argument expresses it
        members.take(self.path)
        return (dict(zip(keys, calls, strict=True)) if self.key else calls) or None


@dataclass(frozen=True)
class Merged:
    """Several dictionaries that are one argument."""

    sources: Sequence[Each]

    def read(self, members: Members) -> Any:
        found = [source.read(members) or {} for source in self.sources]
        return {name: value for part in found for name, value in part.items()} or None


@dataclass(frozen=True)
class Number:
    """A text that is the number which Python writes in the same way."""

    path: str

    def read(self, members: Members) -> Any:
        text = str(members.get(self.path))
        for parse in (int, float):
            try:
                number = parse(text)
            except ValueError:
                continue
            if str(number) == text:
                members.take(self.path)
                return number
        return None


@dataclass(frozen=True)
class Program:
    """The calls that send one request. Each call has a variable, or an empty text."""

    calls: Sequence[tuple[str, New]]
    name: str
    """The words that comments use for the SDK's classes."""
    taken: Mapping[str, Any] = field(default_factory=dict)
    """Values that the SDK always sends, by path."""


def format_sdk_v2(requests: Sequence[CreateRequest], programs: Mapping[str, Program]) -> str:
    """Return a Python program.

    Args:
        programs: the calls for the kinds of resources, by their nouns.
    """
    statements = [one for request in requests for one in _make_statements(request, programs.get(request.kind.noun))]
    return format_program([SESSION, *statements])


def _make_statements(request: CreateRequest, program: Program | None) -> list[Statement]:
    if program is None:
        comment = f"The SDK has no class for {request.operation}."
        return [make_client_call(request, "session.sagemaker_client", comment)]
    members = Members(request.members)
    missing = [path for _, call in program.calls for path in call.required if members.get(path) is None]
    for path, value in program.taken.items():
        if members.get(path) == value:
            members.take(path)
    statements = [Statement(call.read(members) or Call(call.function), name) for name, call in program.calls]
    reasons = [
        *(f"{program.name} cannot express {path}." for path in members.list_paths()),
        *(f"{program.name} would send a value of its own for {path}." for path in missing),
    ]
    return [make_client_call(request, "session.sagemaker_client", "\n".join(reasons))] if reasons else statements
