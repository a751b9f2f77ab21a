"""Summary of a run for a terminal of 80 columns and 24 lines."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.text import Text

from microjobs_orchestrator.runs.results import RunResults


def summary(results: RunResults, heading: str, locations: Sequence[tuple[str, str]]) -> RenderableType:
    """Return the summary.

    Args:
        heading: the run's name and duration.
        locations: names and places of the data that the run left.
    """
    blocks = [shown for block in results.blocks if (shown := block.for_terminal()) is not None]
    lines = [Text.assemble((f"{name:8}", "dim"), place, overflow="fold") for name, place in locations]
    return Group(Rule(Text(heading, overflow="ellipsis"), align="left"), *blocks, *lines)


def relative(path: Path) -> str:
    """Return a path relative to the current folder if it is below it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
