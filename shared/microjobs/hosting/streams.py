"""Response streams: the client receives each part of a response while the handler computes the next one.

The listeners would store parts without a limit if a client reads slowly, and Granian ends each stream as if it were
complete. Therefore, a stream is written to a duplicate of the socket of the connection.
"""

import contextlib
import http.client
import itertools
import logging
import select
import socket
import threading
from collections.abc import Callable, Iterator

from .connections import find_socket
from .listener import Exchange, RequestHead
from .responses import HttpResponse, ResponseStream
from .service import Service

logger = logging.getLogger("microjobs")

SEND_TIMEOUT = 60.0
"""Seconds without progress after which a client counts as disconnected."""
BUFFER_BYTES = 256 * 1024
"""Data that the kernel stores for a client that reads slowly."""
LAST_CHUNK = b"0\r\n\r\n"


class _DisconnectedError(Exception):
    """The client has closed the connection, or does not read any more."""


class StreamSender:
    """Sends the stream of one request, in a thread of its own: the handlers' thread must not wait for a client.

    Args:
        respond: sends a response that is no stream.
        started: start of the request (`time.perf_counter`).
    """

    def __init__(
        self,
        head: RequestHead,
        exchange: Exchange,
        service: Service,
        respond: Callable[[Exchange, HttpResponse], None],
        started: float,
    ) -> None:
        self._head = head
        self._exchange = exchange
        self._service = service
        self._respond = respond
        self._started = started

    def start(self, stream: ResponseStream, on_end: Callable[[], None]) -> None:
        """Start to send a stream, and call `on_end` at its end."""
        threading.Thread(target=self._run, args=(stream, on_end), name="stream", daemon=True).start()

    def _run(self, stream: ResponseStream, on_end: Callable[[], None]) -> None:
        try:
            with contextlib.closing(stream.parts):
                self._send(stream)
        except Exception:
            logger.exception("a stream failed")
        finally:
            on_end()

    def _send(self, stream: ResponseStream) -> None:
        """Send a stream. An error before its first part becomes a response of its own."""
        try:
            first = next(stream.parts, b"")
            connection = find_socket(self._head.client)
            response = stream.make_head()
            if connection is None:
                response = response._replace(body=b"".join([first, *stream.parts]))
        except Exception as error:
            self._respond(self._exchange, self._service.complete(error, self._started))
            return
        if connection is None:
            self._respond(self._exchange, self._service.complete(response, self._started))
            return
        failure = self._write(connection, response, first, stream.parts)
        self._service.complete(failure or response, self._started)
        self._exchange.respond(response.status, [], b"")  # the connection is closed: this only ends the exchange

    def _write(
        self, connection: socket.socket, response: HttpResponse, first: bytes, parts: Iterator[bytes]
    ) -> Exception | None:
        """Write the response and close the connection. Return the error that ended the stream early."""
        writer = _ChunkWriter(connection, is_chunked=self._head.http_version != "1")
        try:
            writer.write_head(response)
            for part in itertools.chain([first], parts):
                writer.write(part)
            writer.finish()
        except _DisconnectedError:
            logger.info("a client disconnected before the end of a stream")
        except Exception as error:
            return error
        finally:
            writer.close()
        return None


class _ChunkWriter:
    """Writes a response in chunks (RFC 9112, 7.1). Each call waits until the client has received most of the data.

    Args:
        is_chunked: False for a client with HTTP/1.0, which does not know chunks.
    """

    def __init__(self, connection: socket.socket, *, is_chunked: bool) -> None:
        self._connection = connection
        self._is_chunked = is_chunked
        # The listener shares the flags of the socket, and needs a socket that does not block.
        connection.settimeout(SEND_TIMEOUT)
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)

    def write_head(self, response: HttpResponse) -> None:
        headers = [*response.headers, ("connection", "close")]
        if self._is_chunked:
            headers.append(("transfer-encoding", "chunked"))
        phrase = http.client.responses.get(response.status, "")
        lines = [f"HTTP/1.1 {response.status} {phrase}", *(f"{name}: {value}" for name, value in headers), "", ""]
        self._send("\r\n".join(lines).encode())

    def write(self, part: bytes) -> None:
        """Write a part. An empty part is skipped, because an empty chunk would end the response."""
        if part:
            self._send(b"%x\r\n%b\r\n" % (len(part), part) if self._is_chunked else part)

    def finish(self) -> None:
        """Mark the response as complete."""
        if self._is_chunked:
            self._send(LAST_CHUNK)

    def close(self) -> None:
        """Close the connection, also for the listener."""
        with self._connection, contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _send(self, data: bytes) -> None:
        """Send data, in time if the client reads at all.

        Raises:
            _DisconnectedError: the client has closed the connection, or does not read.
        """
        view = memoryview(data)
        try:
            if self._has_ended():
                raise _DisconnectedError
            while view:
                view = view[self._connection.send(view) :]
        except OSError as error:
            raise _DisconnectedError from error

    def _has_ended(self) -> bool:
        """Return whether the client has closed its side of the connection."""
        return bool(self._readable.poll(0)) and not self._connection.recv(1, socket.MSG_PEEK)
