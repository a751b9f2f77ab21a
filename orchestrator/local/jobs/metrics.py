"""MetricDefinitions: numbers that regular expressions find in a job's log."""

import contextlib
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.local.errors import ValidationError

Point = tuple[float, float]
"""When (seconds since 1970), and the value."""


class Metrics:
    """The metrics of one job, read line by line from all hosts."""

    def __init__(self, definitions: Sequence[Mapping[str, str]]) -> None:
        self._patterns = {item["Name"]: _compiled(item) for item in definitions}
        self._points: dict[str, list[Point]] = {name: [] for name in self._patterns}
        self._lock = threading.Lock()

    def read(self, time: float, text: str) -> None:
        """Take the values of one line: the first group of each expression that is found in it."""
        for name, pattern in self._patterns.items():
            if (match := pattern.search(text)) and match[1] is not None:  # of `a (x)|b (y)` the first may be none
                with contextlib.suppress(ValueError), self._lock:
                    self._points[name].append((time, float(match[1])))

    def points(self, name: str) -> list[Point]:
        with self._lock:
            return list(self._points.get(name, ()))

    def final(self) -> list[dict[str, Any]]:
        """FinalMetricDataList: the last value of each metric that has one."""
        last = {name: points[-1] for name in self._patterns if (points := self.points(name))}
        return [{"MetricName": name, "Value": value, "Timestamp": time} for name, (time, value) in last.items()]


def _compiled(definition: Mapping[str, str]) -> re.Pattern[str]:
    name, expression = definition["Name"], definition["Regex"]
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise ValidationError(f"Metric {name!r}: Regex {expression!r} is not a regular expression: {error}.") from error
    if pattern.groups < 1:
        raise ValidationError(f"Metric {name!r}: Regex {expression!r} has no group: put the number in parentheses.")
    return pattern
