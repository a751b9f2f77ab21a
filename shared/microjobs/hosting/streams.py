"""Response streams: the client receives each part of a response while the handler computes the next one.

The listeners do not send streams: they would store the parts for a slow client without a limit, and Granian would end a
failed stream as if it were complete. Therefore, this module writes to a duplicate of the connection's socket.
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
from .listener import RequestHead, ServerExchange
from .responses import HttpResponse, ResponseStream
from .service import Service

logger = logging.getLogger("microjobs")

SEND_TIMEOUT_SECONDS = 60.0
"""Seconds without progress after which a client counts as disconnected."""
BUFFER_BYTES = 256 * 1024
"""Maximum number of bytes that the server's socket stores for a client that reads slowly."""
LAST_CHUNK = b"0\r\n\r\n"


class _DisconnectedError(Exception):
    """The client has closed the connection, or does not read any more."""


class StreamSender:
    """Sends the stream of one request, in a thread of its own: the handlers' thread must not wait for a client.

    Args:
        respond: function that sends a response that is not a stream.
        start_time: start of the request (`time.perf_counter`).
    """

    def __init__(
        self,
        head: RequestHead,
        exchange: ServerExchange,
        service: Service,
        respond: Callable[[ServerExchange, HttpResponse], None],
        start_time: float,
    ) -> None:
        self._head = head
        self._exchange = exchange
        self._service = service
        self._respond = respond
        self._start_time = start_time

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
        """Send a stream. If an error occurs before the first part, send an error response instead."""
        try:
            first_part = next(stream.parts, b"")
            connection = find_socket(self._head.client)
            response = stream.make_head()
            if connection is None:
                response = response._replace(body=b"".join([first_part, *stream.parts]))
        except Exception as error:
            self._respond(self._exchange, self._service.complete(error, self._start_time))
            return
        if connection is None:
            self._respond(self._exchange, self._service.complete(response, self._start_time))
            return
        failure = self._write(connection, response, first_part, stream.parts)
        self._service.complete(failure or response, self._start_time)
        self._exchange.respond(response.status, [], b"")  # the connection is closed: this only ends the exchange

    def _write(
        self, connection: socket.socket, response: HttpResponse, first_part: bytes, parts: Iterator[bytes]
    ) -> Exception | None:
        """Write the response and close the connection. If the model ended the stream with an error, return the error.

        A disconnected client is no error."""
        writer = _ChunkWriter(connection, is_chunked=self._head.http_version != "1")
        try:
            writer.write_head(response)
            for part in itertools.chain([first_part], parts):
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
    """Writes a response in chunks (RFC 9112, 7.1). Each call waits until the socket has taken all data of the call. The
    socket's buffer is small, so a slow client delays the calls.

    Args:
        is_chunked: False for a client with HTTP/1.0, which does not know chunks.
    """

    def __init__(self, connection: socket.socket, *, is_chunked: bool) -> None:
        self._connection = connection
        self._is_chunked = is_chunked
        # The listener's socket shares the flag O_NONBLOCK, which must stay set. A timeout keeps it set.
        connection.settimeout(SEND_TIMEOUT_SECONDS)
        self._read_poll = select.poll()
        self._read_poll.register(connection, select.POLLIN)
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
        """Shut down the connection, so that the listener's socket is closed, too."""
        with self._connection, contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _send(self, data: bytes) -> None:
        """Send all data. Wait at most SEND_TIMEOUT_SECONDS each time that the client does not read.

        Raises:
            _DisconnectedError: the client has closed the connection, or does not read.
        """
        remaining_data = memoryview(data)
        try:
            if self._is_closed_by_client():
                raise _DisconnectedError
            while remaining_data:
                remaining_data = remaining_data[self._connection.send(remaining_data) :]
        except OSError as error:
            raise _DisconnectedError from error

    def _is_closed_by_client(self) -> bool:
        """Return whether the client has closed its side of the connection."""
        return bool(self._read_poll.poll(0)) and not self._connection.recv(1, socket.MSG_PEEK)
