"""Response streams: responses that reach the client in parts, while the container still computes.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpointWithResponseStream.html
"""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from microjobs_orchestrator.local.resources.models.client import NoResponseError, Response

PAUSE_INTERVAL = 1.0
"""Seconds without a part after which the stream reports a pause."""


class ResponseStream:
    """The body of a container's response, which a thread reads. It must be closed.

    At most two parts wait for the client. If there are two, the thread waits, and therefore the container waits, too.

    Args:
        on_close: called once, when the response is closed.
    """

    def __init__(self, response: Response, on_close: Callable[[], None]) -> None:
        self.status = response.status
        self.headers = response.headers
        self.container = response.container
        self._response = response
        self._close_callbacks = ExitStack()
        self._close_callbacks.callback(on_close)
        self._close_lock = threading.Lock()
        self._has_ended = False
        self._parts: queue.Queue[bytes | NoResponseError] = queue.Queue(maxsize=1)
        self._is_closed = threading.Event()
        self._reader = threading.Thread(target=self._read, name="response stream", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            for chunk in self._response.read_chunks():
                self._put(chunk)
            self._put(b"")
        except NoResponseError as error:
            self._put(error)
        finally:
            self._response.close()
            with self._close_lock:
                self._has_ended = True
                self._close_callbacks.close()

    def call_on_close(self, function: Callable[[], None]) -> None:
        """Call a function when the response is closed, or at once if it is already closed."""
        with self._close_lock:
            self._close_callbacks.callback(function)
            if self._has_ended:
                self._close_callbacks.close()

    def _put(self, part: bytes | NoResponseError) -> None:
        """Wait until the client has read an earlier part. Drop the part if the stream is closed."""
        while not self._is_closed.is_set():
            try:
                self._parts.put(part, timeout=PAUSE_INTERVAL)
            except queue.Full:
                continue
            return

    def __iter__(self) -> Iterator[bytes | None]:
        """Yield the parts, and None for each second without a part. Raise NoResponseError if the body is incomplete."""
        while True:
            try:
                part = self._parts.get(timeout=PAUSE_INTERVAL)
            except queue.Empty:
                yield None
                continue
            if isinstance(part, NoResponseError):
                raise part
            if not part:
                return
            yield part

    def close(self) -> None:
        """Close the connection to the container, unless the body has ended. The container can then stop computing."""
        self._is_closed.set()
        self._response.abort()
        self._reader.join()
