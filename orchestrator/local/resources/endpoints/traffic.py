"""The present requests to a replica."""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator

from microjobs_orchestrator.local.resources.models.client import NoAnswerError


class Traffic:
    """The present requests to a host, from any thread. After `close`, the end of the last request calls `on_idle`."""

    def __init__(self, on_idle: Callable[[], None]) -> None:
        self._on_idle = on_idle
        self._lock = threading.Lock()
        self._timeouts: Counter[float] = Counter()
        self.is_closed = False

    @contextlib.contextmanager
    def request(self, timeout: float) -> Iterator[None]:
        """Count one request, from its beginning to its end. Raise NoAnswerError after `close`."""
        with self._lock:
            if self.is_closed:
                raise NoAnswerError("the container is being replaced", was_sent=False)
            self._timeouts[timeout] += 1
        try:
            yield
        finally:
            self._finish(timeout)

    def _finish(self, timeout: float) -> None:
        with self._lock:
            self._timeouts[timeout] -= 1
            if not self._timeouts[timeout]:
                del self._timeouts[timeout]
            is_idle = self.is_closed and not self._timeouts
        if is_idle:
            self._on_idle()

    def close(self) -> None:
        with self._lock:
            self.is_closed = True

    def count(self) -> int:
        """Return the number of present requests."""
        with self._lock:
            return self._timeouts.total()

    def longest_timeout(self) -> float:
        """Return the longest timeout of the present requests, in seconds; 0 without requests."""
        with self._lock:
            return max(self._timeouts, default=0.0)
