"""Stopping between two steps instead of in the middle of one."""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

received: list[int] = []
"""The stop signals that came when nobody had asked to be told by a flag."""


@dataclass
class StopRequest:
    """Becomes true when SIGTERM or SIGINT arrives."""

    signal_number: int | None = None

    @property
    def name(self) -> str:
        """`SIGTERM` or `SIGINT`; empty as long as no signal came."""
        return "" if self.signal_number is None else signal.Signals(self.signal_number).name

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Inside this block a stop signal only sets the flag, for a loop to look at between its steps.

    Outside of it the entry point raises `Stopped`, which is right for everything that has nothing to keep yet.
    """
    # A library may have swallowed `Stopped` while it was imported.
    request = StopRequest(received[0] if received else None)

    def remember(number: int, _frame: FrameType | None) -> None:
        request.signal_number = number

    before = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
