"""The requests in progress to a replica."""

import threading
from collections.abc import Callable

from microjobs_orchestrator.local.resources.models.client import NoResponseError


class Traffic:
    """Requests in progress to a replica. Methods may be called from any thread. After `close`, the end of the last
    request calls `on_idle`."""

    def __init__(self, on_idle: Callable[[], None]) -> None:
        self._on_idle = on_idle
        self._lock = threading.Lock()
        self._counts: dict[float, int] = {}
        """The numbers of requests in progress by their timeouts."""
        self.is_closed = False

    def count_request(self, timeout: float) -> "_CountedRequest":
        """Return a context manager that counts one request. After `close`, entering it raises NoResponseError."""
        return _CountedRequest(self, timeout)

    def begin(self, timeout: float) -> None:
        with self._lock:
            if self.is_closed:
                raise NoResponseError("the container is being replaced", was_sent=False)
            self._counts[timeout] = self._counts.get(timeout, 0) + 1

    def finish(self, timeout: float) -> None:
        with self._lock:
            if (count := self._counts.pop(timeout)) > 1:
                self._counts[timeout] = count - 1
            is_idle = self.is_closed and not self._counts
        if is_idle:
            self._on_idle()

    def close(self) -> None:
        with self._lock:
            self.is_closed = True

    def count(self) -> int:
        """Return the number of requests in progress."""
        with self._lock:
            return sum(self._counts.values())

    def find_longest_timeout(self) -> float:
        """Return the longest timeout of the requests in progress, in seconds; 0 without requests."""
        with self._lock:
            return max(self._counts, default=0.0)


class _CountedRequest:
    def __init__(self, traffic: Traffic, timeout: float) -> None:
        self._traffic = traffic
        self._timeout = timeout

    def __enter__(self) -> None:
        self._traffic.begin(self._timeout)

    def __exit__(self, *_: object) -> None:
        self._traffic.finish(self._timeout)
