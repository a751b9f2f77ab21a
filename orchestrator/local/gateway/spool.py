"""Bodies of requests whose sender is not proven yet: they are on the disk, and their number is limited.

Most services sign the SHA-256 of the body without sending it, so the body must be read before the signature can be
verified. Until then it must use little memory.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from tempfile import SpooledTemporaryFile
from typing import IO

from werkzeug import Request

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.streams import Body

MEMORY_BYTES = 256 << 10
"""Larger bodies are temporary files until their sender is proven."""

BLOCK_BYTES = 1 << 16

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
    def open(self, request: Request, max_bytes: int) -> Iterator["SpooledBody"]:
        """Yield the body of a request; its file is deleted after the block."""
        with SpooledTemporaryFile(MEMORY_BYTES) as file:
            yield SpooledBody(request, max_bytes, file, self)

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
            with _limit(stream):
                yield
        finally:
            self._slots.release()


@contextmanager
def _limit(stream: IO[bytes]) -> Iterator[None]:
    if not isinstance(stream, Body):
        yield
        return
    stream.limit(BODY_TIMEOUT)
    yield
    stream.limit(None)


class SpooledBody:
    """A body that `digest` reads. After that it is the input of the request."""

    def __init__(self, request: Request, max_bytes: int, file: IO[bytes], spool: Spool) -> None:
        self._request = request
        self._max_bytes = max_bytes
        self._file = file
        self._spool = spool
        self._digest = ""

    def digest(self) -> str:
        """Return the SHA-256 of the body in hexadecimal digits.

        Raises:
            ServiceError: 413, the body is too large; 408 or 400, it is incomplete; 503, too many bodies are being read.
        """
        if not self._digest:
            self._check_size(self._request.content_length or 0)
            with self._spool.wait(self._request):
                self._digest = self._read()
            self._file.seek(0)
            self._request.environ["wsgi.input"] = self._file
        return self._digest

    def _read(self) -> str:
        stream, digest, size = self._request.environ["wsgi.input"], sha256(), 0
        for block in iter(lambda: _receive(stream), b""):
            size += len(block)
            self._check_size(size)
            digest.update(block)
            self._file.write(block)
        return digest.hexdigest()

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            message = f"the body is larger than {self._max_bytes} bytes, the limit of this service"
            raise ServiceError("RequestEntityTooLarge", message, 413)


def _receive(stream: IO[bytes]) -> bytes:
    try:
        return stream.read(BLOCK_BYTES)
    except OSError as error:
        raise ServiceError("RequestTimeout", f"the body did not come in time: {error}", 408) from error
    except ValueError as error:
        raise ServiceError("IncompleteBody", f"the body cannot be read: {error}") from error
