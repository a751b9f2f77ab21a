"""Requests as a program for version 2 of the SageMaker Python SDK. The program uses the SDK's classes if they express
the whole request.

The tables that map arguments to members are in `sdk_v2_jobs.py` and `sdk_v2_tables.py`. If no argument expresses a
member, or the SDK would add a member, the program sends the request with the SDK's client instead.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Protocol

from microjobs_orchestrator.local.console.code.clients import make_client_call
from microjobs_orchestrator.local.console.code.expressions import Call, Statement, format_program
from microjobs_orchestrator.local.console.code.requests import CreateRequest

SESSION = Statement(Call("Session", module="sagemaker"), "session")


class RemainingMembers:
    """The members of a request that no argument has expressed yet. In paths, dots separate the names of members."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = deepcopy(dict(members))

    def get(self, path: str) -> Any:
        """Return the value of a member; None if the request does not have the member."""
        value: Any = self._members
        for name in path.split("."):
            if not isinstance(value, Mapping) or name not in value:
                return None
            value = value[name]
        return value

    def take(self, path: str) -> Any:
        """Return a value as `get` does. Remove the member, and the structures that are then empty."""
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


class ArgumentSource(Protocol):
    """The part of a request that an argument expresses."""

    def take_argument(self, members: RemainingMembers) -> Any:
        """Return the argument, and remove the members that it expresses. Return None if there is no such member."""


@dataclass(frozen=True)
class MemberSource:
    """A member whose value is the argument."""

    path: str

    def take_argument(self, members: RemainingMembers) -> Any:
        return members.take(self.path)


@dataclass(frozen=True)
class ChoiceSource:
    """A member for which the argument accepts only some values. Other values remain in the request."""

    path: str
    values: Mapping[Any, Any]
    """Arguments by the value of the member."""
    default: Any = None
    """The argument for other values."""

    def take_argument(self, members: RemainingMembers) -> Any:
        if members.get(self.path) not in self.values:
            return self.default
        return self.values[members.take(self.path)]


@dataclass(frozen=True)
class ConstantSource:
    """An argument that does not depend on the request."""

    value: Any

    def take_argument(self, _: RemainingMembers, /) -> Any:
        return self.value


@dataclass(frozen=True)
class CallSource:
    """A call of a function or a class. The call has only arguments whose members are in the request."""

    function: str
    arguments: Mapping[str, ArgumentSource]
    module: str = ""
    required_members: Collection[str] = ()
    """Members that the request must have: if they are missing, the SDK sends its own default values."""

    def take_argument(self, members: RemainingMembers) -> Call | None:
        arguments = {name: source.take_argument(members) for name, source in self.arguments.items()}
        call_arguments = {name: value for name, value in arguments.items() if value is not None}
        return Call(self.function, call_arguments, module=self.module) if call_arguments else None


@dataclass(frozen=True)
class ListSource:
    """A list of structures. The argument is a list, or a dictionary."""

    path: str
    item_source: CallSource
    key: str = ""
    """The member whose values are the keys of the dictionary; empty for a list."""

    def take_argument(self, members: RemainingMembers) -> Any:
        items = [RemainingMembers(value) for value in members.get(self.path) or []]
        keys = [item.take(self.key) for item in items] if self.key else []
        calls = [self.item_source.take_argument(item) for item in items]
        if any(item.list_paths() for item in items) or len(set(keys)) != len(keys):
            return None  # the member remains in the request: no argument expresses it
        members.take(self.path)
        return (dict(zip(keys, calls, strict=True)) if self.key else calls) or None


@dataclass(frozen=True)
class MergedSource:
    """Several lists whose dictionaries are merged into one argument."""

    sources: Sequence[ListSource]

    def take_argument(self, members: RemainingMembers) -> Any:
        dictionaries = [source.take_argument(members) or {} for source in self.sources]
        return {name: value for dictionary in dictionaries for name, value in dictionary.items()} or None


@dataclass(frozen=True)
class NumberSource:
    """A member whose value is a number as text. The argument is the number, if Python formats it as the same text."""

    path: str

    def take_argument(self, members: RemainingMembers) -> Any:
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
    """The calls that send one request."""

    calls: Sequence[tuple[str, CallSource]]
    """The calls, each with the name of the variable for its result; empty if the program does not use the result."""
    name: str
    """The name of the SDK's class or method in comments."""
    fixed_values: Mapping[str, Any] = field(default_factory=dict)
    """Values that the SDK always sends, by path."""


def format_sdk_v2(requests: Sequence[CreateRequest], programs: Mapping[str, Program]) -> str:
    """Return a Python program.

    Args:
        programs: the calls for the kinds of resources, by their nouns.
    """
    statements = [
        statement for request in requests for statement in _make_statements(request, programs.get(request.kind.noun))
    ]
    return format_program([SESSION, *statements])


def _make_statements(request: CreateRequest, program: Program | None) -> list[Statement]:
    if program is None:
        comment = f"The SDK has no class for {request.operation}."
        return [make_client_call(request, "session.sagemaker_client", comment)]
    members = RemainingMembers(request.members)
    missing_paths = [path for _, call in program.calls for path in call.required_members if members.get(path) is None]
    for path, value in program.fixed_values.items():
        if members.get(path) == value:
            members.take(path)
    statements = [Statement(call.take_argument(members) or Call(call.function), name) for name, call in program.calls]
    reasons = [
        *(f"{program.name} cannot express {path}." for path in members.list_paths()),
        *(f"{program.name} would send its own value for {path}." for path in missing_paths),
    ]
    return [make_client_call(request, "session.sagemaker_client", "\n".join(reasons))] if reasons else statements
