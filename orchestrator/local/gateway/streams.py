"""Streams of one connection, and the body of a request without its transfer coding."""

import io
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.tasks import WRITE, wait

BLOCK_BYTES = 1 << 16
MAX_UNSENT_BYTES = 1 << 16
_MAX_CHUNK_LINE_BYTES = 4096
_MAX_TRAILERS = 32
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")


class Reader:
    """Buffered reader of a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()
        self.closed = False

    @property
    def received_bytes(self) -> bytearray:
        """Received bytes that have not been read yet."""
        return self._buffer

    def fill(self) -> bool:
        """Receive one block of data, and wait for it if necessary. Return False at the end of the stream."""
        block = self._socket.recv(BLOCK_BYTES)
        self._buffer += block
        return bool(block)

    def fill_at_once(self) -> bool:
        """Receive data that has arrived. This is faster than `recv`, which would first prepare to wait for data."""
        block = os.read(self._socket.fileno(), BLOCK_BYTES)
        self._buffer += block
        return bool(block)

    def readline(self, size: int) -> bytes:
        """Return the next line with its line end, at most `size` bytes; less at the end of the stream."""
        end = self._buffer.find(b"\n", 0, size)
        while end < 0 and len(self._buffer) < size and self.fill():
            end = self._buffer.find(b"\n", 0, size)
        return self.take(size if end < 0 else end + 1)

    def readinto(self, buffer: memoryview) -> int:
        """Read received bytes, or wait for some; return 0 at the end of the stream."""
        if not self._buffer:
            return self._socket.recv_into(buffer)
        data = self.take(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def take(self, size: int) -> bytes:
        """Return received bytes, at most `size`."""
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def close(self) -> None:
        self.closed = True


class Writer:
    """Writer to a socket that is non-blocking or has a timeout.

    It keeps up to MAX_UNSENT_BYTES until the end of the response. Therefore, a small response is sent in one piece, and
    no worker thread waits until its client reads it.

    Args:
        timeout: seconds for which one call may wait.
    """

    def __init__(self, connection: socket.socket, timeout: float) -> None:
        self._socket = connection
        self._timeout = timeout
        self._unsent: bytes | memoryview = b""

    def write(self, data: bytes) -> int:
        """Keep bytes for a later call of `send` or `try_send`. If more than MAX_UNSENT_BYTES are kept, send all of
        them, and wait for the client if necessary."""
        self._unsent = bytes(self._unsent) + data if self._unsent else data
        if len(self._unsent) > MAX_UNSENT_BYTES:
            self.send()
        return len(data)

    def send(self) -> None:
        """Send all bytes. Raise OSError if the client does not receive them in time."""
        deadline = time.monotonic() + self._timeout
        try:
            while not self.try_send():
                wait(self._socket, WRITE, deadline)
        except OSError:
            self._unsent = b""
            raise

    def try_send(self) -> bool:
        """Send without waiting; return whether all bytes are sent."""
        try:
            while self._unsent:  # `socket.send` would wait up to the socket's timeout
                count = os.write(self._socket.fileno(), self._unsent)
                self._unsent = memoryview(self._unsent)[count:] if count < len(self._unsent) else b""
        except BlockingIOError:
            return False
        return True


class BodyConnection(Protocol):
    """The parts of a connection that a body needs."""

    rfile: Reader
    wfile: Writer
    socket: socket.socket


class Body(io.RawIOBase):
    """A request's body, without its transfer coding.

    The first read sends `100 Continue` to a client that sent `Expect: 100-continue`.

    Args:
        length: in bytes; None for a chunked body.
        expects_continue: whether the client waits for `100 Continue`.
        timeout: seconds for which one read may wait.
    """

    def __init__(
        self, connection: BodyConnection, length: int | None, *, expects_continue: bool, timeout: float
    ) -> None:
        self._connection = connection
        self._is_chunked = length is None
        self._bytes_left = length or 0
        self._is_read = length == 0
        self._timeout = timeout
        self._deadline: float | None = None
        self.expects_continue = expects_continue and length != 0

    def readable(self) -> bool:
        return True

    @contextmanager
    def limit_time(self, seconds: float) -> Iterator[None]:
        """Limit the total time of all reads in the `with` block."""
        self._deadline = time.monotonic() + seconds
        yield
        self._deadline = None
        self._connection.socket.settimeout(self._timeout)

    def has_arrived(self) -> bool:
        """Return whether the rest of the body can be read without waiting."""
        is_buffered = len(self._connection.rfile.received_bytes) >= self._bytes_left
        return self._is_read or (is_buffered and not self._is_chunked)

    def take(self) -> bytes:
        """Return the rest of the body without waiting. The caller has checked `has_arrived`."""
        body = b"" if self._is_read else self._connection.rfile.take(self._bytes_left)
        self._is_read = True
        return body

    def skip_if_arrived(self) -> bool:
        """Drop the rest of the body if all of it has arrived. Return whether the connection is at the end of the
        body."""
        if not self._is_read and self.has_arrived():
            del self._connection.rfile.received_bytes[: self._bytes_left]
            self._is_read = True
        return self._is_read

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any writable buffer
        """Read some bytes of the body, and return their number; 0 at the end.

        Raises:
            OSError: the client is slow or disconnected.
            ValueError: the body is malformed or incomplete.
        """
        if self._is_read or not len(buffer):
            return 0
        self._prepare()
        if self._is_chunked and not self._bytes_left:
            self._bytes_left = self._read_chunk_size()
            if not self._bytes_left:
                return 0
        count = self._connection.rfile.readinto(memoryview(buffer)[: self._bytes_left])
        self._bytes_left -= count
        if not self._bytes_left:
            self._finish_chunk()
        elif not count:
            raise ValueError("the connection was closed before the end of the body")
        return count

    def _prepare(self) -> None:
        if self.expects_continue:
            self.expects_continue = False
            self._connection.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._connection.wfile.send()
        if self._deadline is not None:
            seconds = self._deadline - time.monotonic()
            if seconds <= 0:
                raise TimeoutError("timed out")
            self._connection.socket.settimeout(min(seconds, self._timeout))

    def _read_chunk_size(self) -> int:
        """Return the size of the next chunk. If it is 0, the body has ended, and its trailers have been read."""
        size = self._read_line().partition(b";")[0].strip(b" \t")
        if not _CHUNK_SIZE.fullmatch(size):
            raise ValueError(f"{size[:20]!r} is not the size of a chunk")
        if not int(size, 16):
            self._skip_trailers()
            self._is_read = True
        return int(size, 16)

    def _finish_chunk(self) -> None:
        if not self._is_chunked:
            self._is_read = True
        elif self._read_line():
            raise ValueError("a chunk is longer than its size")

    def _skip_trailers(self) -> None:
        for _ in range(_MAX_TRAILERS):
            if not self._read_line():
                return
        raise ValueError(f"the body has more than {_MAX_TRAILERS} trailers")

    def _read_line(self) -> bytes:
        line = self._connection.rfile.readline(_MAX_CHUNK_LINE_BYTES)
        if not line.endswith(b"\r\n"):
            raise ValueError("a line between chunks does not end with CR LF")
        return line[:-2]


class Stream(Protocol):
    """A source of bytes. `read` returns at most `size` bytes; none at the end."""

    def read(self, size: int, /) -> bytes: ...


class Input:
    """Reads the input of a request. After an error, `read` returns empty blocks.

    Args:
        late_status: HTTP status of the error for a client that is slow or disconnected.
    """

    def __init__(self, stream: Stream, late_status: int = 400) -> None:
        self._stream = stream
        self._late_status = late_status
        self._has_ended = False

    def read(self, size: int = BLOCK_BYTES, /) -> bytes:
        """Read a block; empty at the end.

        Raises:
            ServiceError: RequestTimeout, the client is slow or disconnected; IncompleteBody, the body is malformed.
        """
        try:
            return b"" if self._has_ended else self._stream.read(size)
        except (OSError, ValueError) as error:
            self._has_ended = True
            if isinstance(error, OSError):
                message = f"The body did not arrive in time: {error}."
                raise ServiceError("RequestTimeout", message, self._late_status) from error
            raise ServiceError("IncompleteBody", f"The body cannot be read: {error}.") from error

    def drain(self) -> None:
        """Read the rest of the body, so that the connection can be reused. Skip this if the client still waits for
        `100 Continue`: it has sent no body."""
        if not getattr(self._stream, "expects_continue", False):
            with suppress(ServiceError):
                while self.read():
                    pass
