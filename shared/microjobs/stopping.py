"""Stop requests, which let a loop stop between two of its steps."""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

received_signals: list[int] = []
"""Stop signals that arrived outside of `stop_request`."""


@dataclass
class StopRequest:
    """A flag that becomes true when SIGTERM or SIGINT arrives."""

    signal_number: int | None = None

    @property
    def signal_name(self) -> str:
        """`SIGTERM` or `SIGINT`; empty before a signal arrives."""
        return "" if self.signal_number is None else signal.Signals(self.signal_number).name

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Let stop signals set a flag while the block runs. A loop checks the flag between its steps.

    Outside of the block, there is nothing to save, so the entry point's handler of the signals raises `Stopped`.
    """
    # A signal may have arrived earlier, during the import of a library that suppressed `Stopped`.
    request = StopRequest(received_signals[0] if received_signals else None)

    def set_flag(number: int, _frame: FrameType | None) -> None:
        request.signal_number = number

    previous_handlers = {number: signal.signal(number, set_flag) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
