"""Waiting for a condition in tests."""

import time
from collections.abc import Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

TIMEOUT_SECONDS = 150.0
MIN_INTERVAL_SECONDS = 0.002
MAX_INTERVAL_SECONDS = 0.05
"""Requests to a server need processor time, so a long wait polls rarely."""


@overload
def wait_until(poll: Callable[[], T | None], *, seconds: float = TIMEOUT_SECONDS) -> T: ...


@overload
def wait_until(poll: Callable[[], T], is_done: Callable[[T], object], seconds: float = TIMEOUT_SECONDS) -> T: ...


def wait_until(
    poll: Callable[[], Any], is_done: Callable[[Any], object] = bool, seconds: float = TIMEOUT_SECONDS
) -> Any:
    """Call `poll` until `is_done` accepts its result, by default a true result; return the result.

    Fail after a number of seconds, with the last result.
    """
    deadline = time.monotonic() + seconds
    interval = MIN_INTERVAL_SECONDS
    while not is_done(result := poll()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s; the last result is {result!r}"
        time.sleep(interval)
        interval = min(1.5 * interval, MAX_INTERVAL_SECONDS)
    return result
