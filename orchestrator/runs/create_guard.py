"""Ctrl-C during a run."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class CreateGuard:
    """Delays Ctrl-C until a Create call returns: an aborted call may still create a resource that nothing would stop.

    The first Ctrl-C (or SIGTERM, or the end of the terminal) raises KeyboardInterrupt. Later signals are ignored,
    so that they do not end the cleanup. But a later signal during a Create call raises KeyboardInterrupt at once, for
    users who do not want to wait.
    """

    def __init__(self) -> None:
        self._is_creating = False
        self._is_interrupted = False
        self._is_pending = False

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Handle signals while the block runs."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
            numbers.append(signal.SIGHUP)
        handlers = {number: signal.signal(number, self._interrupt) for number in numbers}
        self._is_interrupted = False
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def creating(self) -> Iterator[None]:
        """Delay the first interruption to the end of the block, which then raises KeyboardInterrupt."""
        self._is_creating, self._is_pending = True, False
        try:
            yield
        finally:
            self._is_creating = False
        if self._is_pending:
            raise KeyboardInterrupt

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_creating and not self._is_interrupted:
            self._is_interrupted = self._is_pending = True
        elif self._is_creating or not self._is_interrupted:
            self._is_interrupted = True
            raise KeyboardInterrupt
