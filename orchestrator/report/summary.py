"""The end of a run on a terminal of 80 columns and 24 lines."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from microjobs_orchestrator.runs.progress import trial_table
from microjobs_orchestrator.runs.results import RunResults

TOP_TRIALS = 3


def summary(results: RunResults, heading: str, places: Sequence[tuple[str, str]]) -> RenderableType:
    """What came out, and where everything lies.

    Args:
        results: the workflow's.
        heading: the run's name and how long it took.
        places: what lies where.
    """
    parts: list[RenderableType] = [Rule(Text(heading, overflow="ellipsis"), align="left")]
    parts.append(_figures(results.figures))
    if results.trials:
        parts.append(Padding(trial_table(results.trials[:TOP_TRIALS], results.objective), (1, 0, 0, 0)))
    parts.append(Padding(_predictions(results), (1, 0)))
    places = [("score", results.score_report), *places]
    for what, where in places:
        parts.append(Text.assemble((f"{what:8}", "dim"), where, overflow="fold"))
    return Group(*parts)


def _figures(figures: Sequence[tuple[str, float]]) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_row(*(Text(name, style="dim") for name, _ in figures))
    table.add_row(*(Text(number(value), style="bold") for _, value in figures))
    return table


def _predictions(results: RunResults) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    rows = [("predicted", *aligned(results.predictions)), ("target", *aligned(results.targets))]
    for name, *values in rows:
        table.add_row(Text(name, style="dim"), *(Text(value, justify="right") for value in values))
    return table


def number(value: float) -> str:
    """A result with the digits that matter: those of a loss of 3054.33 as well as of a weight of 0.3067."""
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"


def aligned(values: Sequence[float]) -> list[str]:
    """Numbers with as many decimals as let each have at most six characters, so that ten stand in a line."""
    for decimals in (4, 3, 1, 0):
        texts = [f"{value:.{decimals}f}" for value in values]
        if all(len(text) <= 6 for text in texts):
            return texts
    return [f"{value:.0e}" for value in values]


def near(path: Path) -> str:
    """A path as one would type it from here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
