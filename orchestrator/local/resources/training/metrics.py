"""Metrics of a training job: its MetricDefinitions are regular expressions that find numbers in its log.

The user writes the expressions, and some need exponential time. Therefore each search has a time limit and does not
hold the interpreter's lock, so other jobs and requests do not wait for it. If the slow searches of a job take too long
in total, the most expensive definition is skipped.
"""

import math
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import regex

from microjobs_orchestrator import terminal
from microjobs_orchestrator.local.errors import ValidationError

Point = tuple[float, float]
"""A time (seconds since 1970) and a value."""

SEARCH_TIMEOUT_SECONDS = 1.0
"""Seconds of CPU time for one search in one line."""
MAX_SEARCH_SECONDS = 10.0
"""Seconds of CPU time for all slow searches of a job. When they are used up, the most expensive definition is
skipped."""
UNCOUNTED_SECONDS, UNCOUNTED_SECONDS_PER_CHARACTER = 1e-4, 1e-7
"""Seconds of CPU time that are not counted: per search, and per character of the searched line."""
MAX_REPETITIONS = 10_000
"""Maximum number of repetitions that an expression such as `(a{100}){100}` requires. Each repetition takes memory."""

_NUMBER_PATTERN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_COMMENT_PATTERN = re.compile(r"(?<!\\)(?:\\\\)*(\(\?(?:#|[a-zA-Z0-9]*x))")
"""Matches comments and the flag `x`, which allow text that `_count_repetitions` would misread."""
_RECURSION_PATTERN = re.compile(r"(?<!\\)(?:\\\\)*(\(\?(?:R|[+-]?[0-9]|&|P>))")
"""Matches calls of a group. They take 8 KB of memory for each character of a line, and AWS does not support them
either."""
_TOKEN_PATTERN = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\{(\d+)(?:,\d*)?\}|.", re.DOTALL)
"""Matches an escaped character, a set of characters, a repetition such as `{9}`, or any other character."""


class Metrics:
    """The metrics of one job, read line by line from all hosts.

    Args:
        note: called with a message for the user when a search with the expression of a definition fails for the first
            time, and when the definition is skipped.
        skipped_names: the names of definitions that an earlier server skipped.
        record: called with the name of the metric and the point for each new value, from any thread.
    """

    def __init__(
        self,
        definitions: Sequence[Mapping[str, str]],
        note: Callable[[str], None] = lambda _: None,
        skipped_names: Collection[str] = (),
        record: Callable[[str, Point], None] = lambda *_: None,
    ) -> None:
        self._patterns = {item["Name"]: compile_definition(item) for item in definitions}
        self._points: dict[str, list[Point]] = {name: [] for name in self._patterns}
        self._spent_seconds = {name: 0.0 for name in self._patterns if name not in skipped_names}
        """Seconds of CPU time of slow searches, by the names of the definitions that are not skipped."""
        self._note = note
        self._record = record
        self._reported_names: set[str] = set()
        self._lock = threading.Lock()
        self.on_value: Callable[[], None] = lambda: None
        """A function that is called after each new value, from any thread."""

    def read(self, timestamp: float, text: str) -> None:
        """Read the values of one line: the first group of each expression that matches the line.

        Control characters, such as those of progress bars, are applied first; see `terminal.render_states`.
        """
        states = terminal.render_states(text)
        for name in list(self._spent_seconds):
            match = next(filter(None, (self._search(name, state) for state in states)), None)
            value = None if match is None else _parse_number(match[1])  # group 1 of `a (x)|b (y)` may be None
            if value is not None:
                with self._lock:
                    self._points[name].append((timestamp, value))
                self._record(name, (timestamp, value))
                self.on_value()

    def _search(self, name: str, text: str) -> regex.Match[str] | None:
        """Search a line for the expression of a definition, within the time limit."""
        start_time = time.thread_time()
        try:
            match = self._patterns[name].search(text, timeout=SEARCH_TIMEOUT_SECONDS, concurrent=True)
        except (TimeoutError, MemoryError) as error:
            cost = "too much memory" if isinstance(error, MemoryError) else f"more than {SEARCH_TIMEOUT_SECONDS:g} s"
            self._report_failed_search(name, text, cost)
            match = None
        self._count_time(
            name, time.thread_time() - start_time - UNCOUNTED_SECONDS - UNCOUNTED_SECONDS_PER_CHARACTER * len(text)
        )
        return match

    def _report_failed_search(self, name: str, text: str, cost: str) -> None:
        """Note the first failed search of a definition. `cost` is the time or the memory that the search needed."""
        with self._lock:
            is_first = name not in self._reported_names
            self._reported_names.add(name)
        if is_first:
            self._note(
                f"metric {name!r}: its Regex took {cost} on a line of {len(text)} characters; "
                "this metric ignores such lines"
            )

    def _count_time(self, name: str, seconds: float) -> None:
        """Count the time of a slow search. When the time is used up, skip the most expensive definition."""
        if seconds <= 0:
            return
        with self._lock:
            if name in self._spent_seconds:
                self._spent_seconds[name] += seconds
            if sum(self._spent_seconds.values()) <= MAX_SEARCH_SECONDS:
                return
            costliest_name = max(self._spent_seconds, key=lambda name: self._spent_seconds[name])
            spent = self._spent_seconds.pop(costliest_name)
        self._note(
            f"metric {costliest_name!r} is skipped from now on: its Regex took {spent:.1f} s of computing time; "
            "make it simpler, for example without nested repetitions"
        )

    @property
    def skipped_names(self) -> list[str]:
        """The names of skipped definitions."""
        return [name for name in self._patterns if name not in self._spent_seconds]

    def list_points(self, name: str) -> list[Point]:
        with self._lock:
            return list(self._points.get(name, ()))

    def list_all_points(self) -> dict[str, list[Point]]:
        """Return the points of each metric that has one, by the name of the metric."""
        return {name: points for name in self._patterns if (points := self.list_points(name))}

    def list_final_values(self) -> list[dict[str, Any]]:
        """Return FinalMetricDataList: the last value of each metric that has one."""
        last = ((name, points[-1]) for name, points in self.list_all_points().items())
        return [{"MetricName": name, "Value": value, "Timestamp": time} for name, (time, value) in last]


def _parse_number(text: str | None) -> float | None:
    """Parse a finite decimal number; return None for other text. AWS also drops `nan` and `inf`."""
    if text is None or len(text) > 400 or _NUMBER_PATTERN.fullmatch(text.strip()) is None:
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def compile_definition(definition: Mapping[str, str]) -> regex.Pattern[str]:
    """Compile the expression of a metric definition.

    Raises:
        ValidationError: the expression is malformed, has no group, or may take too much memory or time.
    """
    expression = definition["Regex"]
    prefix = f"Metric {definition['Name']!r}: Regex {expression!r}"
    if reason := _find_cost_error(expression):
        raise ValidationError(f"{prefix} {reason}.")
    try:
        pattern = regex.compile(expression)
    except (regex.error, RecursionError, OverflowError, MemoryError, ValueError) as error:
        raise ValidationError(f"{prefix} is not a regular expression: {error}.") from error
    if pattern.groups < 1:
        raise ValidationError(f"{prefix} has no group: put the number in parentheses.")
    return pattern


def _find_cost_error(expression: str) -> str:
    """Return why an expression could take too much memory or time; an empty string if it cannot."""
    if match := _COMMENT_PATTERN.search(expression):
        return f"has a comment or the flag x at {match[1]!r}: remove it"
    if match := _RECURSION_PATTERN.search(expression):
        return f"calls a group at {match[1]!r}: write the group's expression in its place"
    count = _count_repetitions(expression)
    return f"requires {count} repetitions; at most {MAX_REPETITIONS} are supported" if count > MAX_REPETITIONS else ""


def _count_repetitions(expression: str) -> int:
    """Return the number of items that an expression has if repetitions such as `{9}` and `{9,}` are written out."""
    sums, last = [0], 0
    for match in _TOKEN_PATTERN.finditer(expression):
        if match[1]:
            last *= max(1, int(match[1]))
            continue
        sums[-1], last = sums[-1] + last, 1
        if match[0] == "(":
            sums.append(0)
        elif match[0] == ")" and len(sums) > 1:
            last = sums.pop()
    return sum(sums) + last
