"""The blocks of a run's results. A workflow may also define its own blocks: see `runs.workflow.Block`."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from microjobs_orchestrator.report import svg
from microjobs_orchestrator.report.page import make_section, make_table
from microjobs_orchestrator.runs.trials import Trial, format_value, make_trial_table

MAX_NUMBER_CHARACTERS = 6
"""Maximum length of an aligned number. Ten such numbers fit into a line."""

MAX_SUMMARY_TRIALS = 3
"""Maximum number of trials in the summary, best first. The page shows all trials."""


@dataclass(frozen=True)
class Metrics:
    """Named numbers, such as the test MSE before and after tuning."""

    values: Sequence[tuple[str, float]]

    def for_terminal(self) -> Table:
        grid = Table.grid(padding=(0, 3, 0, 0))
        grid.add_row(*(Text(name, style="dim") for name, _ in self.values))
        grid.add_row(*(Text(format_number(value), style="bold") for _, value in self.values))
        return grid

    def to_html(self) -> str:
        tiles = (
            f"<div><span class='soft'>{escape(name)}</span><b>{format_number(value)}</b></div>"
            for name, value in self.values
        )
        return f"<p></p><div class='tiles'>{''.join(tiles)}</div>"


@dataclass(frozen=True)
class Trials:
    """The trials of a tuning job, best first."""

    trials: Sequence[Trial]
    objective_name: str

    def for_terminal(self) -> Padding:
        return Padding(make_trial_table(self.trials[:MAX_SUMMARY_TRIALS], self.objective_name), (1, 0, 0, 0))

    def to_html(self) -> str:
        names = list(self.trials[0].hyperparameters)
        prefix = self.trials[0].name.rsplit("-", 2)[0]
        rows = [
            [
                trial.name.removeprefix(f"{prefix}-"),
                f"{trial.objective:.6g}",
                *(format_value(trial.hyperparameters[name]) for name in names),
            ]
            for trial in self.trials
        ]
        # The names have spaces, so that long names can be wrapped on a narrow screen.
        header = ["training job", self.objective_name, *(name.replace("_", " ") for name in names)]
        note = f"<p class='soft'>The names of these training jobs begin with {escape(prefix)}-.</p>"
        return make_section("Trials, best first", make_table(header, rows) + note)


@dataclass(frozen=True)
class Predictions:
    """Predictions of the endpoint with their targets, one number per row of test data."""

    predictions: Sequence[float]
    targets: Sequence[float]

    def for_terminal(self) -> Padding:
        grid = Table.grid(padding=(0, 1, 0, 0))
        for name, values in (("predicted", self.predictions), ("target", self.targets)):
            grid.add_row(Text(name, style="dim"), *(Text(value, justify="right") for value in align_numbers(values)))
        return Padding(grid, (1, 0))

    def to_html(self) -> str:
        row_numbers = map(str, range(len(self.targets)))
        columns = (row_numbers, align_numbers(self.predictions), align_numbers(self.targets))
        rows = list(zip(*columns, strict=True))
        return make_section("Predictions of the endpoint", make_table(["row", "predicted", "target"], rows))


@dataclass(frozen=True)
class BatchScoreReport:
    """The report of the batch-score job."""

    text: str

    def for_terminal(self) -> Text:
        return Text.assemble((f"{'score':8}", "dim"), self.text, overflow="fold")

    def to_html(self) -> str:
        return make_section("Batch score", f"<pre>{escape(self.text)}</pre>")


class Figure(Protocol):
    """One plot or picture of the page."""

    @property
    def title(self) -> str: ...

    def to_html(self) -> str: ...


@dataclass(frozen=True)
class Figures:
    """Plots and pictures, side by side. Only the page shows them."""

    figures: Sequence[Figure]

    def for_terminal(self) -> None:
        return None

    def to_html(self) -> str:
        figures = (
            f"<figure><figcaption>{escape(figure.title)}</figcaption>{figure.to_html()}</figure>"
            for figure in self.figures
        )
        return make_section("Plots", f"<div class='plots'>{''.join(figures)}</div>")


@dataclass(frozen=True)
class Picture:
    """A picture that a job drew."""

    title: str
    png: bytes

    def to_html(self) -> str:
        data = base64.b64encode(self.png).decode()
        return f"<img alt='{escape(self.title)}' src='data:image/png;base64,{data}'>"


@dataclass(frozen=True)
class PredictionPlot:
    """Predictions against targets."""

    targets: Sequence[float]
    predictions: Sequence[float]

    @property
    def title(self) -> str:
        return f"Predicted and target, all {len(self.targets)} test rows"

    def to_html(self) -> str:
        points = list(zip(self.targets, self.predictions, strict=True))
        return svg.draw_scatter(points, "target", "predicted", diagonal=True)


@dataclass(frozen=True)
class TrialPlot:
    """Objectives of trials against one of their hyperparameters, on a logarithmic axis."""

    trials: Sequence[Trial]
    hyperparameter: str
    objective_name: str
    title: str = "Trials"

    def to_html(self) -> str:
        points = [(float(trial.hyperparameters[self.hyperparameter]), trial.objective or 0.0) for trial in self.trials]
        labels = [
            " ".join(f"{name} {format_value(value)}" for name, value in trial.hyperparameters.items())
            for trial in self.trials
        ]
        return svg.draw_scatter(
            points, self.hyperparameter.replace("_", " "), self.objective_name, log_x=True, labels=labels
        )


def format_number(value: float) -> str:
    """Format one number: a loss as 3054.33, a weight as 0.3067."""
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"


def align_numbers(values: Sequence[float]) -> list[str]:
    """Format numbers of one line with the same number of decimals: the first of 4, 3, 1 and 0 with which all numbers
    have at most MAX_NUMBER_CHARACTERS. If there is none, use the exponential notation."""
    for decimals in (4, 3, 1, 0):
        texts = [f"{value:.{decimals}f}" for value in values]
        if all(len(text) <= MAX_NUMBER_CHARACTERS for text in texts):
            return texts
    return [f"{value:.0e}" for value in values]
