"""The checks that are common to CloudWatch's operations for statistics."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.metrics.periods import MINUTE, STATISTICS, align, is_statistic

SHORT_PERIODS = (1, 5, 10, 20, 30)
"""Allowed periods, in seconds, that are not multiples of a minute."""

Request = Mapping[str, Any]


class Span(NamedTuple):
    """The time span for which a request reads statistics."""

    start: float
    """The start of the first period, in seconds since 1970."""
    end: float
    period: int
    """The length of each period in seconds."""


def make_value_error(message: str) -> ServiceError:
    return ServiceError("InvalidParameterValue", message)


def read_span(request: Request, period: int) -> Span:
    """Return the time span of a request. Raise ServiceError InvalidParameterValue if the span is empty or the period is
    invalid."""
    start, end = float(request["StartTime"]), float(request["EndTime"])
    if start >= end:
        raise make_value_error("The parameter StartTime must be less than the parameter EndTime.")
    check_period(period)
    return Span(align(start, period), end, period)


def check_period(period: int) -> None:
    """Raise ServiceError InvalidParameterValue for a period that CloudWatch does not have."""
    if period not in SHORT_PERIODS and (period % MINUTE or period <= 0):
        raise make_value_error(f"Period {period} must be 1, 5, 10, 20, 30 or a multiple of {MINUTE}.")


def check_statistic(name: str, member: str, *, is_extended: bool = False) -> None:
    """Raise ServiceError InvalidParameterValue for a statistic that is not supported.

    Args:
        is_extended: whether only percentiles are valid.
    """
    if not is_statistic(name) or (is_extended and name in STATISTICS):
        supported = "" if is_extended else f"{', '.join(STATISTICS)} and "
        raise make_value_error(f"{member} {name!r:.100} is not supported here: use {supported}p0 to p100.")
