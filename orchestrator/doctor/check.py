"""The interface of a check, and its findings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

Level = Literal["ok", "note", "problem", "unknown"]
"""`note`: works, but could be better. `problem`: some runs fail. `unknown`: the check was not possible."""


@dataclass(frozen=True)
class Finding:
    """One result of a check."""

    level: Level
    message: str
    remedy: str = ""
    """A command or an instruction; empty if nothing has to be done."""


class Check(Protocol):
    """One check. To add one, write a class like this and list it in its package's `__init__`."""

    @property
    def name(self) -> str:
        """The subject, as a noun phrase."""

    def run(self) -> Iterator[Finding]:
        """Yield the findings."""
