"""A result of a check."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem", "unknown"]
"""`ok`: all is well. `note`: runs work, but something could be better. `problem`: some runs fail. `unknown`: the check
was not possible."""


@dataclass(frozen=True)
class Finding:
    level: Level
    message: str
    remedy: str = ""
    """A command or an instruction; empty if nothing has to be done, or if the message contains the remedy."""
