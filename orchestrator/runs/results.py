"""Results of a run. A workflow returns them as blocks, and each block declares how it is shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import RenderableType


class Block(Protocol):
    """One part of the results."""

    def for_terminal(self) -> "RenderableType | None":
        """Return the block for the summary, or None if only the page shows it."""
        ...

    def to_html(self) -> str:
        """Return the block for the report page."""
        ...


@dataclass(frozen=True)
class Location:
    """An S3 URI where the run left data."""

    name: str
    uri: str
    in_summary: bool = False
    """The summary shows the location, too, relative to the run's folder."""


@dataclass(frozen=True)
class RunResults:
    title: str
    blocks: Sequence[Block]
    """In the order in which they are shown."""
    locations: Sequence[Location] = ()
    log: Sequence[str] = ()
    """Log lines that are a result: printed before the summary."""
