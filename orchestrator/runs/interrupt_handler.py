"""Handling of Ctrl-C during a run."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class InterruptHandler:
    """Delays Ctrl-C until a Create call returns: an aborted call may still create a resource that nothing would stop.

    The first signal (Ctrl-C, SIGTERM, or the end of the terminal) raises KeyboardInterrupt: after a Create call if one
    is in progress, otherwise at once. A second signal during a Create call raises it at once, for users who do not want
    to wait. All other later signals are ignored, so that they do not end the cleanup.
    """

    def __init__(self) -> None:
        self._is_creating = False
        self._is_interrupted = False
        self._is_pending = False

    @contextlib.contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Handle signals while the block runs."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # with `nohup`, SIGHUP is ignored
            numbers.append(signal.SIGHUP)
        handlers = {number: signal.signal(number, self._interrupt) for number in numbers}
        self._is_interrupted = False
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def delay_ctrl_c(self) -> Iterator[None]:
        """Delay the effect of the first signal to the end of the block, which then raises KeyboardInterrupt."""
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
