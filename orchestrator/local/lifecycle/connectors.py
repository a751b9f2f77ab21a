"""Functions that connect to the processes of resources that jobs use, such as MLflow servers."""

import socket
import threading
from collections.abc import Callable

Connect = Callable[[float], socket.socket]
"""Connects to a process. The argument is the time limit in seconds."""


class Connectors:
    """Functions that connect to processes, by the ARNs of the resources. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._connect_by_arn: dict[str, Connect] = {}
        self._changed = threading.Condition()
        self._is_closed = False

    def add(self, arn: str, connect: Connect) -> None:
        with self._changed:
            self._connect_by_arn[arn] = connect
            self._changed.notify_all()

    def remove(self, arn: str) -> None:
        self._connect_by_arn.pop(arn, None)

    def find(self, arn: str) -> Connect | None:
        """Return the function of a resource; None while its process does not answer."""
        return self._connect_by_arn.get(arn)

    def wait(self, arn: str, seconds: float) -> None:
        """Wait until the process of a resource answers, `close` is called, or this number of seconds has passed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or arn in self._connect_by_arn, seconds)

    def close(self) -> None:
        """Let all calls of `wait` return."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
