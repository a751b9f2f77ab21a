"""What one sees while jobs run: a live line on a terminal, plain lines elsewhere, and what is finished above it."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from microjobs_orchestrator.durations import duration
from microjobs_orchestrator.runs.logs import Event
from microjobs_orchestrator.terminal import safe

TAIL_LINES = 15


@dataclass(frozen=True)
class Trial:
    """A training job of a tuning job."""

    name: str
    status: str
    objective: float | None
    hyperparameters: dict[str, str]


def best_first(trials: Sequence[Trial]) -> list[Trial]:
    """Those that have an objective to be minimised, the best one first."""
    return sorted((trial for trial in trials if trial.objective is not None), key=lambda trial: trial.objective or 0.0)


@dataclass
class StepDisplay:
    """What is known of the step that goes on."""

    title: str
    started: float = field(default_factory=time.monotonic)
    status: str = "starting"
    cost: str = ""
    """What the run has cost so far, where that is known."""
    trials: Sequence[Trial] = ()
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def __rich__(self) -> RenderableType:
        lines: list[RenderableType] = [
            Spinner("dots", Text(f"{self.title}  {self.status}  {duration(self.seconds)}  {self.cost}", no_wrap=True)),
        ]
        if self.trials:
            lines.append(trial_table(self.trials))
        elif self.tail:
            lines.append(Text(f"  {self.tail[-1]}", style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*lines)


class Progress:
    """Shows steps, one after the other.

    Args:
        console: where; a terminal gets a line that changes.
        verbose: show every line of the jobs' logs.
    """

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        self.console = console
        self.verbose = verbose

    @contextmanager
    def step(self, title: str) -> Iterator[StepDisplay]:
        """Show a step while it goes on, and a line for it when it has ended."""
        step = StepDisplay(title)
        if not self.console.is_terminal:
            self.console.print(f"{title} …", highlight=False)
        try:
            with self._live(step):
                yield step
        except BaseException:
            self._mark("✗", "red", step)
            raise
        self._mark("✓", "green", step)

    def _live(self, step: StepDisplay) -> AbstractContextManager[object]:
        if not self.console.is_terminal:
            return nullcontext()
        return Live(step, console=self.console, transient=True, refresh_per_second=8)

    def _mark(self, sign: str, style: str, step: StepDisplay) -> None:
        line = Text.assemble(
            (sign, style), f" {step.title}  ", (f"{duration(step.seconds)}  {step.cost}".rstrip(), "dim")
        )
        self.console.print(line)

    def note(self, text: str) -> None:
        """A line that stays. Nobody may be able to read it, which is no reason to leave a job running."""
        with suppress(OSError):
            self.console.print(Text(safe(text), style="dim"))

    def status(self, step: StepDisplay, status: str) -> None:
        if status != step.status and not self.console.is_terminal:
            self.console.print(f"  {duration(step.seconds):>8}  {status}", highlight=False)
        step.status = status

    def log(self, step: StepDisplay, events: Iterable[Event]) -> None:
        for event in events:
            step.tail.append(safe(event.text))
            if self.verbose:
                self.console.print(Text.assemble((f"{event.host}  ", "cyan"), Text.from_ansi(event.text)))

    def trials(self, step: StepDisplay, trials: Sequence[Trial]) -> None:
        """Show the trials; where nothing can change in place, each one when it has ended."""
        if not self.console.is_terminal:
            known = {trial.name for trial in step.trials if trial.status not in ("InProgress", "Stopping")}
            for trial in trials:
                if trial.name not in known and trial.status not in ("InProgress", "Stopping"):
                    self.console.print(Text(f"  {duration(step.seconds):>8}  {_line(trial)}"))
        step.trials = trials


def _line(trial: Trial) -> str:
    values = " ".join(f"{name}={short(value)}" for name, value in trial.hyperparameters.items())
    objective = "no objective" if trial.objective is None else f"{trial.objective:.5g}"
    return f"{trial.name}  {trial.status}  {objective}  {values}"


def trial_table(trials: Sequence[Trial], objective: str = "objective") -> Table:
    """A row a trial with what was tried and what came out."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("trial", no_wrap=True)
    table.add_column(objective, justify="right")
    names = list(dict.fromkeys(name for trial in trials for name in trial.hyperparameters))
    for name in names:
        table.add_column(name, justify="right")
    for trial in trials:
        outcome = trial.status if trial.objective is None else f"{trial.objective:.5g}"
        values = (short(trial.hyperparameters.get(name, "")) for name in names)
        table.add_row("-".join(trial.name.split("-")[-2:]), outcome, *values)
    return table


def short(value: str) -> str:
    """A number with four digits that count; other text as it is."""
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return safe(value)
