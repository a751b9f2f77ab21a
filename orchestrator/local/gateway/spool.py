"""Bodies of requests whose sender is not proven yet: they are on disk, and their number is limited.

Most services sign the SHA-256 of the body without sending it, so the body must be read before the signature can be
verified. Until then it must use little memory.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from hashlib import sha256
from tempfile import SpooledTemporaryFile
from typing import IO

from werkzeug import Request

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.streams import Body, Input

MEMORY_BYTES = 256 << 10
"""Larger bodies are temporary files until their sender is proven."""

BODY_TIMEOUT = 60.0
"""Time for a whole body."""

MAX_BODIES = 32
"""Limit for bodies that are read at the same time: fewer than the server's threads, so that slow senders cannot occupy
all of them."""

MAX_FORMS = 16
"""Limit for forms that are read at the same time. It is separate, since senders of forms may be unknown."""


class Spool:
    """Reads bodies. It may be used from any thread."""

    def __init__(self, max_bodies: int = MAX_BODIES) -> None:
        self._max_bodies = max_bodies
        self._slots = threading.BoundedSemaphore(max_bodies)

    @contextmanager
    def open(self, request: Request, max_bytes: int) -> Iterator[Callable[[], str]]:
        """Yield a function that reads the body of a request and returns its SHA-256 in hexadecimal digits.

        It raises ServiceError: 413, the body is too large; 408 or 400, it is incomplete; 503, too many bodies are being
        read. After it, a file is the input of the request. The file is deleted after the block.
        """
        with SpooledTemporaryFile(MEMORY_BYTES) as file:
            yield cache(lambda: self._copy(request, max_bytes, file))

    def _copy(self, request: Request, max_bytes: int, file: IO[bytes]) -> str:
        size, digest = 0, sha256()
        _check_size(request.content_length or 0, max_bytes)
        with self.wait(request):
            for block in iter(Input(request.environ["wsgi.input"], late_status=408).read, b""):
                size += len(block)
                _check_size(size, max_bytes)
                digest.update(block)
                file.write(block)
        file.seek(0)
        request.environ["wsgi.input"] = file
        return digest.hexdigest()

    @contextmanager
    def wait(self, request: Request) -> Iterator[None]:
        """Let the block read a body, for at most `BODY_TIMEOUT` seconds.

        Raises:
            ServiceError: 503, too many bodies are being read.
        """
        stream = request.environ["wsgi.input"]
        if isinstance(stream, Body) and stream.has_arrived():  # a small body is received with the headers
            yield
            return
        if not self._slots.acquire(blocking=False):
            message = f"{self._max_bodies} other requests without a proven sender are being read: try again"
            raise ServiceError("ServiceUnavailable", message, 503)
        try:
            with stream.limit(BODY_TIMEOUT) if isinstance(stream, Body) else nullcontext():
                yield
        finally:
            self._slots.release()


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        message = f"the body is larger than {max_bytes} bytes, the limit of this service"
        raise ServiceError("RequestEntityTooLarge", message, 413)
