"""Bodies that are read as streams, with errors in the words of S3."""

import contextlib

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.forms import Stream

BLOCK_BYTES = 1 << 20


class Input:
    """Reads `wsgi.input`. After an error it is at its end."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._has_ended = False

    def read(self, size: int, /) -> bytes:
        """Read a block; empty at the end.

        Raises:
            ServiceError: RequestTimeout, the client is slow or gone; IncompleteBody, the body is malformed.
        """
        if self._has_ended:
            return b""
        try:
            return self._stream.read(size)
        except OSError as error:
            self._has_ended = True
            raise ServiceError("RequestTimeout", f"The body did not come in time: {error}.") from error
        except ValueError as error:
            self._has_ended = True
            raise ServiceError("IncompleteBody", f"The body cannot be read: {error}.") from error

    def drain(self) -> None:
        """Read the rest, so that the connection can be used again, unless the client waits before it sends it."""
        if getattr(self._stream, "is_awaited", False):
            return
        with contextlib.suppress(ServiceError):
            while self.read(BLOCK_BYTES):
                pass
