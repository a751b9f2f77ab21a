"""Cheroot's WSGI server, with a strict parser of requests. Invalid HTTP gets an error in AWS's form."""

import contextlib
import io
import logging
import re
import socket
import sys
import time
from collections.abc import Container, Iterator
from email.utils import formatdate
from functools import lru_cache, partial
from typing import Any
from xml.etree import ElementTree

from cheroot import wsgi
from cheroot.server import HTTPRequest
from cheroot.workers.threadpool import ThreadPool, WorkerThread
from cheroot.wsgi import Gateway_10

from microjobs_orchestrator.local.gateway.connection import Connection
from microjobs_orchestrator.local.gateway.connections import Connections
from microjobs_orchestrator.local.gateway.header_fields import check_framing, parse_headers, read_headers
from microjobs_orchestrator.local.gateway.streams import Body
from microjobs_orchestrator.local.protocols.http import HEADERS

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 << 10
"""Limit for a request's first line and headers together; AWS accepts 8 KB of each."""

END_TIMEOUT = 1.0
"""Seconds that a stopping server waits for its requests after it has closed their connections."""

IP_FREEBIND = 15
"""Linux's socket option for binding an address that the machine does not have yet. The module `socket` lacks it."""

_USUAL_LINE = re.compile(rb"(GET|PUT|POST|HEAD|DELETE) ((/(?!/)[A-Za-z0-9_.~/-]*)(?:\?([!\"$-~]*))?) (HTTP/1\.1)\r\n")
"""A first line whose path needs no decoding."""
MAX_USUAL_LINE_BYTES = 4096
_TARGET = re.compile(rb"[!-~]+")
_PROTOCOL = re.compile(rb"HTTP/[0-9]\.[0-9]")
_STATUSES_WITHOUT_BODY = ("204", "205", "304")


class Parser(HTTPRequest):
    """Parses a request's first line and headers, and sends the head of its response."""

    response_head = b""
    """The status line and the headers of the application's response."""
    response_header_names: Container[str] = ()
    """The names of the headers in `response_head`, in lower case."""

    def read_request_line(self) -> bool:
        """Parse a line of the usual form. Cheroot parses all other lines, and reports errors in invalid lines."""
        if match := _USUAL_LINE.match(self.conn.rfile.received_bytes, 0, MAX_USUAL_LINE_BYTES):
            self.started_request = True
            self.method, self.uri, self.path, qs, self.request_protocol = match.groups()
            self.qs, self.authority, self.response_protocol = qs or b"", b"", "HTTP/1.1"
            self.conn.rfile.take(match.end())
            return True
        return self._read_unusual_line()

    def _read_unusual_line(self) -> bool:
        try:
            is_valid = bool(super().read_request_line())  # type: ignore[no-untyped-call]
        except ValueError as error:  # such as an invalid address in brackets
            self.simple_response("400 Bad Request", f"Malformed Request-URI: {error}")
            return False
        # Cheroot accepts `HTTP/1.+1`, and splits the target with code that drops tabs and line ends.
        if is_valid and not (_TARGET.fullmatch(self.uri) and _PROTOCOL.fullmatch(self.request_protocol)):
            self.simple_response("400 Bad Request", "Malformed Request-Line")
            return False
        return is_valid

    def read_request_headers(self) -> bool:
        """Replace cheroot's reader, which uses the last value of a repeated header, and accepts `+5` as a length."""
        try:
            head = self._take_head()
            self.inheaders = (head and parse_headers(head)) or {}
            if not self.inheaders:
                read_headers(self.rfile.readline if head is None else io.BytesIO(head).readline, self.inheaders)
            check_framing(self.request_protocol, self.inheaders)
        except ValueError as error:
            self.simple_response("400 Bad Request", str(error))
            return False
        return self._read_connection_headers()

    def _take_head(self) -> bytes | None:
        """Return the headers with the empty line; None if some headers have not been received."""
        received_bytes = self.conn.rfile.received_bytes
        end = -1 if received_bytes.startswith(b"\r\n") else received_bytes.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
        return None if end < 0 else self.conn.rfile.take(end + 4)

    def _read_connection_headers(self) -> bool:
        """Set `close_connection`. Return False after an error response for Transfer-Encoding or Expect."""
        coding = self.inheaders.get(b"Transfer-Encoding", b"chunked").lower()
        expectation = self.inheaders.get(b"Expect", b"100-continue").lower()
        if coding != b"chunked":
            self.simple_response("501 Unimplemented", "Transfer-Encoding must be chunked")
        elif expectation != b"100-continue":
            self.simple_response("417 Expectation Failed", "Expect must be 100-continue")
        connection = self.inheaders.get(b"Connection", b"").lower()
        options = [option.strip() for option in connection.split(b",")] if connection else ()
        is_persistent = b"close" not in options if self.response_protocol == "HTTP/1.1" else b"keep-alive" in options
        self.close_connection = self.close_connection or not is_persistent
        return bool(coding == b"chunked" and expectation == b"100-continue")

    def respond(self) -> None:
        """Replace cheroot's method, which keeps a chunk of any size in memory and sends `100 Continue` too early."""
        self.chunked_read = b"Transfer-Encoding" in self.inheaders
        length = None if self.chunked_read else int(self.inheaders.get(b"Content-Length", 0))
        expects_continue = b"Expect" in self.inheaders and self.request_protocol == b"HTTP/1.1"
        self.rfile = Body(self.conn, length, expects_continue=expects_continue, timeout=self.server.timeout)
        self.server.gateway(self).respond()
        self.ensure_headers_sent()
        if self.chunked_write:
            self.conn.wfile.write(b"0\r\n\r\n")

    def send_headers(self) -> None:
        """Replace cheroot's method, which is slow, and reads the rest of the body.

        Close the connection after the response if the body was not read completely: the rest could be long, and its
        sender may not be authenticated.
        """
        if not self.rfile.skip_if_arrived():
            self.close_connection = self.conn.lingers = True
        lines = [*self._make_framing()]
        if "date" not in self.response_header_names:
            lines.append(_format_date(int(time.time())))
        if "server" not in self.response_header_names:
            lines.append(f"Server: {self.server.server_name}")
        self.conn.wfile.write(self.response_head + "\r\n".join((*lines, "", "")).encode())

    def _make_framing(self) -> Iterator[str]:
        """Yield the headers that state where the response ends, and whether the connection is closed after it."""
        is_http_1_1 = self.response_protocol == "HTTP/1.1"
        if "content-length" not in self.response_header_names and not self.status.startswith(_STATUSES_WITHOUT_BODY):
            self.chunked_write = is_http_1_1 and self.method != b"HEAD"
            self.close_connection = self.close_connection or not self.chunked_write
            if self.chunked_write:
                yield "Transfer-Encoding: chunked"
        self.close_connection = self.close_connection or self.status.startswith("413")
        if self.close_connection:
            yield "Connection: close"
        elif not is_http_1_1:
            yield "Connection: Keep-Alive"

    def simple_response(self, status: str | int, msg: str = "") -> None:
        """Send an error for invalid HTTP. Close the connection: the start of the next request is unknown."""
        reason = str(status).partition(" ")[2]
        root = ElementTree.Element("Error")
        for name, text in (("Code", reason.title().replace(" ", "")), ("Message", msg or reason)):
            ElementTree.SubElement(root, name).text = text
        body = ElementTree.tostring(root, "utf-8", xml_declaration=True)
        head = f"Connection: close\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
        self.close_connection = self.conn.lingers = True
        with contextlib.suppress(OSError):
            self.conn.wfile.write(f"{self.server.protocol} {status}\r\n{head}".encode("latin-1") + body)


class ApplicationCaller(Gateway_10):
    """Calls the WSGI application. In its environment, a header such as `A_B` cannot replace the header `A-B`."""

    def respond(self) -> None:
        """Replace cheroot's method, which skips the empty parts of a response. They stand for pauses of a stream."""
        response: Any = self.req.server.wsgi_app(self.env, self.start_response)
        try:
            for part in response:
                if part:
                    self.write(part)
                if self.remaining_bytes_out is None:  # the client waits for each part of a stream
                    self._send_stream_part(part)
        finally:
            self.req.ensure_headers_sent()
            if hasattr(response, "close"):
                response.close()

    def _send_stream_part(self, part: bytes) -> None:
        """Send a part of a stream. After an empty part, check whether the client has left."""
        self.req.ensure_headers_sent()
        if part:
            self.req.conn.wfile.send()
        else:
            self.req.conn.send_and_check_client()

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Any:  # noqa: ARG002
        """Replace cheroot's method, which is slow. The application calls it once."""
        self.started_response = True
        lines = [f"HTTP/1.1 {status}", *[f"{name}: {value}" for name, value in headers], ""]
        values = {name.lower(): value for name, value in headers}
        self.req.status, self.req.response_header_names = status, values
        self.req.response_head = "\r\n".join(lines).encode("latin-1")
        length = values.get("content-length")
        self.remaining_bytes_out = None if length is None else int(length)
        return self.write

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]  # cheroot's stubs have no types
        """Replace cheroot's method, which is slow, and stores the headers `A-B` and `A_B` in one variable."""
        request, server = self.req, self.req.server
        headers, variables = {}, {}
        for name, value in request.inheaders.items():
            lower_name, variable = _get_names(name)
            headers[lower_name] = text = value.decode("latin-1")
            if variable:
                variables[variable] = text
        return {
            **variables,
            "REQUEST_METHOD": request.method.decode("latin-1"),
            "REQUEST_URI": request.uri.decode("latin-1"),
            "PATH_INFO": request.path.decode("latin-1"),
            "QUERY_STRING": request.qs.decode("latin-1"),
            "SCRIPT_NAME": "",
            "SERVER_NAME": server.server_name,
            "SERVER_PORT": str(server.bind_addr[1]),
            "SERVER_PROTOCOL": request.request_protocol.decode("latin-1"),
            "REMOTE_ADDR": request.conn.remote_addr,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": request.rfile,
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            HEADERS: headers,
        }


@lru_cache(maxsize=256)
def _get_names(header: bytes) -> tuple[str, str]:
    """Return the name of a header in lower case, and the name of its WSGI variable. The variable's name is empty if the
    header's name contains an underscore."""
    name = header.decode("latin-1")
    variable = name.upper().replace("-", "_")
    is_prefixed = variable not in ("CONTENT_TYPE", "CONTENT_LENGTH")
    return name.lower(), "" if "_" in name else f"HTTP_{variable}" if is_prefixed else variable


class _Worker(WorkerThread):
    """A thread that answers requests. Once its pool has stopped, it does not keep the process running."""

    def start(self) -> None:
        self.daemon = True
        super().start()

    def join(self, timeout: float | None = None) -> None:
        """Without a timeout, do not wait: the thread may wait for minutes for another program, such as a container."""
        super().join(timeout or 0)


class Workers(ThreadPool):
    """The threads that answer requests."""

    def __init__(self, server: "Server", count: int) -> None:
        super().__init__(server, min=count)
        self._spawned_workers: list[_Worker] = []

    def _spawn_worker(self) -> _Worker:
        worker = _Worker(self.server)  # type: ignore[no-untyped-call]  # cheroot's stubs have no types
        worker.start()
        self._spawned_workers.append(worker)
        return worker

    def stop(self, timeout: int = 5) -> None:
        """Wait until the requests have ended.

        After the timeout, close the connections of the requests that still run, and wait for `END_TIMEOUT` seconds.
        Then abandon the requests that still run.

        Args:
            timeout: in seconds.
        """
        super().stop(timeout)
        deadline = time.monotonic() + END_TIMEOUT
        for worker in self._spawned_workers:
            worker.join(max(0.0, deadline - time.monotonic()))

    @staticmethod
    def _force_close(conn: Connection | None) -> None:
        """Replace cheroot's method, which lets a stopped server wait for clients that read no responses."""
        if conn is not None:
            with contextlib.suppress(OSError):
                conn.socket.shutdown(socket.SHUT_RDWR)


class Server(wsgi.Server):
    """Listener on one address. Set its `wsgi_app` before it serves.

    Args:
        allow_missing_address: whether to listen even if this machine does not have the address yet. This works only on
            Linux; other systems raise OSError.
        options: arguments of cheroot's server.
    """

    _connections: Connections
    """Replaces cheroot's `ConnectionManager`, which has methods of the same names."""

    def __init__(self, address: tuple[str, int], *, allow_missing_address: bool = False, **options: Any) -> None:
        super().__init__(address, None, **options)
        self.requests = Workers(self, self.requests.min)
        self._allow_missing_address = allow_missing_address
        self.gateway = ApplicationCaller
        self.max_request_header_size = MAX_HEAD_BYTES

    def prepare(self) -> None:
        super().prepare()
        self._connections.close()
        self._connections = Connections(self.socket, partial(Connection, self, Parser), self._enqueue, MAX_HEAD_BYTES)

    def bind_socket(self, socket_: socket.socket, bind_addr: tuple[str, int]) -> socket.socket:  # type: ignore[override]
        if self._allow_missing_address and sys.platform == "linux":
            socket_.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)
        try:
            super().bind_socket(socket_, bind_addr)  # type: ignore[no-untyped-call]
        except OSError:
            socket_.close()  # cheroot leaves it open
            raise
        # Cheroot sets SO_REUSEADDR only if the port is not 0. Connections inherit the option. Without it, they would
        # keep the port for a minute after the end of this process. The option is set after `bind`: if it were set
        # earlier, the system could choose a port that is in use.
        socket_.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return socket_

    def _enqueue(self, connection: Connection) -> None:
        connection.socket.settimeout(self.timeout)
        self.requests.put(connection)

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        logger.log(level, "%s", msg, exc_info=traceback)


@lru_cache(maxsize=1)
def _format_date(seconds: int) -> str:
    return f"Date: {formatdate(seconds, usegmt=True)}"
