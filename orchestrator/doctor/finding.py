"""A result of a check."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem", "unknown"]
"""`note`: works, but could be better. `problem`: some runs fail. `unknown`: the check was not possible."""


@dataclass(frozen=True)
class Finding:
    level: Level
    message: str
    remedy: str = ""
    """A command or an instruction; empty if nothing has to be done."""
