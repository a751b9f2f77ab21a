"""Progress of a run: a live line on a terminal, plain lines elsewhere, and one line per finished step."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from microjobs_orchestrator.durations import format_duration
from microjobs_orchestrator.failures import JobFailedError
from microjobs_orchestrator.runs.logs import LogEvent
from microjobs_orchestrator.runs.trials import Trial, format_value, make_trial_table
from microjobs_orchestrator.terminal import strip_controls

MAX_LAST_LINES = 15
RUNNING_STATUSES = ("InProgress", "Stopping")
"""Statuses of a trial that has not ended."""


@dataclass
class StepDisplay:
    """The state of a running step, as it is displayed."""

    title: str
    start_time: float = field(default_factory=time.monotonic)
    """Seconds of the monotonic clock."""
    status: str = "starting"
    cost: str = ""
    """The cost of the run so far; empty if the run costs nothing."""
    trials: Sequence[Trial] = ()
    last_log_lines: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_LAST_LINES))
    """The last lines of the log."""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start_time

    def make_failure(self, name: str, status: str, reason: str) -> JobFailedError:
        """Return the error for a job or endpoint that did not succeed."""
        return JobFailedError(self.title, name, status, reason, tuple(self.last_log_lines))

    def __rich__(self) -> RenderableType:
        line = Text(f"{self.title}  {self.status}  {format_duration(self.seconds)}  {self.cost}", no_wrap=True)
        lines: list[RenderableType] = [Spinner("dots", line)]
        if self.trials:
            lines.append(make_trial_table(self.trials))
        elif self.last_log_lines:
            lines.append(Text(f"  {self.last_log_lines[-1]}", style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*lines)


class Progress:
    """Displays the steps of a run, one after the other.

    A terminal shows a live line; other outputs get only permanent lines. `verbose` shows every line of the jobs' logs.
    """

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        self.console = console
        self.verbose = verbose

    @contextmanager
    def step(self, title: str) -> Iterator[StepDisplay]:
        """Display a step while the `with` block runs, then print one line for the step."""
        display = StepDisplay(title)
        if not self.console.is_terminal:
            self.console.print(f"{title} …", highlight=False)
        try:
            with self._open_live_display(display):
                yield display
        except BaseException:
            self._print_end("✗", "red", display)
            raise
        self._print_end("✓", "green", display)

    def _open_live_display(self, display: StepDisplay) -> AbstractContextManager[object]:
        if not self.console.is_terminal:
            return nullcontext()
        return Live(display, console=self.console, transient=True, refresh_per_second=8)

    def _print_end(self, symbol: str, style: str, display: StepDisplay) -> None:
        times = f"{format_duration(display.seconds)}  {display.cost}".rstrip()
        self.console.print(Text.assemble((symbol, style), f" {display.title}  ", (times, "dim")))

    def print_note(self, text: str) -> None:
        """Print a line. Ignore errors of the console, so that the caller can still stop its jobs and endpoint."""
        with suppress(OSError):
            self.console.print(Text(strip_controls(text), style="dim"))

    def show_status(self, display: StepDisplay, status: str) -> None:
        """Show the status of the step's job. Without a terminal, print the status if it has changed."""
        if status != display.status and not self.console.is_terminal:
            self.console.print(f"  {format_duration(display.seconds):>8}  {status}", highlight=False)
        display.status = status

    def show_log(self, display: StepDisplay, events: Iterable[LogEvent]) -> None:
        """Show new lines of the log: all lines if `verbose` is set. Otherwise, a terminal shows only the last line."""
        for event in events:
            display.last_log_lines.append(strip_controls(event.text))
            if self.verbose:
                self.console.print(Text.assemble((f"{event.host}  ", "cyan"), Text.from_ansi(event.text)))

    def show_trials(self, display: StepDisplay, trials: Sequence[Trial]) -> None:
        """Show the trials. Without a terminal, print each ended trial once."""
        if not self.console.is_terminal:
            printed = {trial.name for trial in display.trials if trial.status not in RUNNING_STATUSES}
            for trial in trials:
                if trial.name not in printed and trial.status not in RUNNING_STATUSES:
                    self.console.print(Text(f"  {format_duration(display.seconds):>8}  {_format_trial(trial)}"))
        display.trials = trials


def _format_trial(trial: Trial) -> str:
    values = " ".join(f"{name}={format_value(value)}" for name, value in trial.hyperparameters.items())
    objective = "no objective" if trial.objective is None else f"{trial.objective:.5g}"
    return f"{trial.name}  {trial.status}  {objective}  {values}"
