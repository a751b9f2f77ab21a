"""Stopping between two steps instead of in the middle of one."""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopRequest:
    """Becomes true when SIGTERM or SIGINT arrives."""

    signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Inside this block a stop signal only sets the flag, for a loop to look at between its steps.

    Outside of it the entry point raises `Stopped`, which is right for everything that has nothing to keep yet.
    """
    request = StopRequest()

    def remember(number: int, _frame: FrameType | None) -> None:
        request.signal_number = number

    before = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
