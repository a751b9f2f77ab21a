"""Typed access to the JSON objects of a definition, with errors that name the place and the member."""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from microjobs_orchestrator.local.resources.pipelines.definition.messages import (
    get_type_name,
    make_error,
    make_name_hint,
    quote,
)

NAME_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Names of steps and parameters."""

Choice = TypeVar("Choice", bound=StrEnum)


class Structure:
    """A JSON object of a definition.

    Args:
        place: a phrase for error messages, such as `step 'Train'`.

    Raises:
        ValidationError: the value is not an object, or has unknown or missing members.
    """

    def __init__(
        self, value: Any, place: str, known_members: Sequence[str], required_members: Sequence[str] = ()
    ) -> None:
        if not isinstance(value, dict):
            raise make_error(place, f"expected an object, found {get_type_name(value)}")
        for name in value:
            if name not in known_members:
                raise make_error(place, f"member {quote(name)} is unknown ({make_name_hint(name, known_members)})")
        for name in required_members:
            if value.get(name) is None:
                raise make_error(place, f"member {name} is missing")
        self.members: Mapping[str, Any] = {name: content for name, content in value.items() if content is not None}
        self.place = place

    def locate_member(self, member: str) -> str:
        return f"{self.place}, member {member}"

    def has(self, member: str) -> bool:
        return member in self.members

    def read_text(self, member: str) -> str:
        """Return a text, or an empty text if the member is missing."""
        return str(self._read(member, str, "a String", ""))

    def read_name(self, member: str) -> str:
        """Return the name of a step or a parameter."""
        name = self.read_text(member)
        if not NAME_PATTERN.fullmatch(name):
            raise make_error(
                self.locate_member(member),
                f"{quote(name)} must have 1 to 64 ASCII letters, digits, hyphens or underscores",
            )
        return name

    def read_choice(self, member: str, choices: type[Choice]) -> Choice:
        text = self.read_text(member)
        if text not in tuple(choices):
            hint = make_name_hint(text, [str(choice) for choice in choices])
            raise make_error(self.locate_member(member), f"value {quote(text)} does not exist ({hint})")
        return choices(text)

    def read_list(self, member: str) -> list[Any]:
        """Return a list, or an empty list if the member is missing."""
        items = self._read(member, list, "an array", [])
        assert isinstance(items, list)  # noqa: S101  as `_read` checks
        return items

    def read_object(self, member: str) -> Mapping[str, Any]:
        """Return an object, or an empty object if the member is missing."""
        members = self._read(member, dict, "an object", {})
        assert isinstance(members, dict)  # noqa: S101  as `_read` checks
        return members

    def read_flag(self, member: str) -> bool:
        return bool(self._read(member, bool, "a Boolean", False))

    def read_number(self, member: str, minimum: float, maximum: float, *, is_integer: bool = True) -> float | None:
        """Return a number, or None if the member is missing."""
        value = self.members.get(member)
        if value is None:
            return None
        number_types: Any = int if is_integer else int | float
        if isinstance(value, bool) or not isinstance(value, number_types) or not minimum <= value <= maximum:
            noun = "an Integer" if is_integer else "a number"
            problem = f"expected {noun} from {minimum:g} to {maximum:g}, found {quote(value)}"
            raise make_error(self.locate_member(member), problem)
        return float(value)

    def _read(self, member: str, python_type: type, noun: str, default: Any) -> Any:
        value = self.members.get(member, default)
        if not isinstance(value, python_type):
            raise make_error(self.locate_member(member), f"expected {noun}, found {get_type_name(value)}")
        return value
