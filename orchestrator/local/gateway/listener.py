"""Cheroot's WSGI server, with a strict parser of requests. Invalid HTTP gets an error in AWS's form.

Each header has one meaning and one value. WSGI has one variable for `X-Amz-Target` and `X_Amz_Target`, and a repeated
header has two values. In both cases, an unsigned header could replace the signed header.
"""

import contextlib
import logging
import re
import socket
import sys
import time
from collections.abc import Callable, Container, Iterator, Mapping, MutableMapping
from email.utils import formatdate
from functools import lru_cache, partial
from typing import Any, cast
from xml.etree import ElementTree

from cheroot import wsgi
from cheroot.server import HTTPRequest
from cheroot.wsgi import Gateway_10

from microjobs_orchestrator.local.gateway.connections import Connection, Connections
from microjobs_orchestrator.local.gateway.streams import Body
from microjobs_orchestrator.local.protocols.http import HEADERS

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 << 10
"""Limit for a request's first line and headers together; AWS accepts 8 KB of each."""

IP_FREEBIND = 15
"""Linux's socket option, which Python's module `socket` does not have."""

_TARGET = re.compile(rb"[!-~]+")
_PROTOCOL = re.compile(rb"HTTP/[0-9]\.[0-9]")


_STATUSES_WITHOUT_BODY = (b"204", b"205", b"304")

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL_CHARACTER = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = re.compile(rb"[0-9]{1,18}")

_SINGLE_VALUE_HEADERS = frozenset(
    {
        *("authorization", "date", "expect", "expires", "from", "host", "if-modified-since", "if-range"),
        *("if-unmodified-since", "max-forwards", "origin", "range", "referer", "transfer-encoding", "user-agent"),
    }
)
_SINGLE_VALUE_PREFIXES = ("content-", "sec-", "x-amz-", "x-amzn-")
_REPEATABLE_PREFIXES = ("x-amz-meta-", "x-amz-object-attributes", "x-amz-optional-object-attributes")
"""Headers of Amazon that may be repeated: some SDKs send one header per item."""


class Parser(HTTPRequest):
    """Parser of a request's first line and headers."""

    def read_request_line(self) -> bool:
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
        """Replace cheroot's reader, which uses the last of several values and accepts `+5` as a length."""
        try:
            read_headers(self.rfile.readline, self.inheaders)
            check_framing(self.request_protocol, self.inheaders)
        except ValueError as error:
            self.simple_response("400 Bad Request", str(error))
            return False
        return self._read_connection_headers()

    def _read_connection_headers(self) -> bool:
        """Check the coding of the body, and find out whether the connection is persistent. Do not read the body."""
        coding = self.inheaders.get(b"Transfer-Encoding", b"chunked").lower()
        expected = self.inheaders.get(b"Expect", b"100-continue").lower()
        if coding != b"chunked":
            self.simple_response("501 Unimplemented", "Transfer-Encoding must be chunked")
        elif expected != b"100-continue":
            self.simple_response("417 Expectation Failed", "Expect must be 100-continue")
        options = {option.strip() for option in self.inheaders.get(b"Connection", b"").lower().split(b",")}
        is_persistent = b"close" not in options if self.response_protocol == "HTTP/1.1" else b"keep-alive" in options
        self.close_connection = self.close_connection or not is_persistent
        return bool(coding == b"chunked" and expected == b"100-continue")

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

        Close the connection if the body was not read: it could be long, and its sender may be unknown.
        """
        if not self.rfile.is_consumed():
            self.close_connection = self.conn.lingers = True
        names = {name.lower() for name, _ in self.outheaders}
        headers = [*self.outheaders, *self._make_framing(names)]
        own_headers = ((b"Date", _format_date(int(time.time()))), (b"Server", self.server.server_name.encode()))
        headers += [(name, value) for name, value in own_headers if name.lower() not in names]
        lines = [b"HTTP/1.1 %b" % cast("bytes", self.status), *(b"%b: %b" % header for header in headers), b"", b""]
        self.conn.wfile.write(b"\r\n".join(lines))

    def _make_framing(self, names: Container[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield the headers that state the ends of the response and of the connection."""
        is_current, status = self.response_protocol == "HTTP/1.1", cast("bytes", self.status)
        if b"content-length" not in names and not status.startswith(_STATUSES_WITHOUT_BODY):
            self.chunked_write = is_current and self.method != b"HEAD"
            self.close_connection = self.close_connection or not self.chunked_write
            if self.chunked_write:
                yield b"Transfer-Encoding", b"chunked"
        self.close_connection = self.close_connection or status.startswith(b"413")
        if self.close_connection:
            yield b"Connection", b"close"
        elif not is_current:
            yield b"Connection", b"Keep-Alive"

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


class EnvironmentBuilder(Gateway_10):
    """Creates a WSGI environment in which a header with an underscore in its name cannot replace another header."""

    def respond(self) -> None:
        """Replace cheroot's method, which skips empty parts of a response: they stand for pauses of a stream."""
        response: Any = self.req.server.wsgi_app(self.env, self.start_response)
        try:
            for part in response:
                if part:
                    self.write(part)
                if self.remaining_bytes_out is None:  # the client waits for each part of a stream
                    self._send_present(part)
        finally:
            self.req.ensure_headers_sent()
            if hasattr(response, "close"):
                response.close()

    def _send_present(self, part: bytes) -> None:
        """Send a part of a stream. After an empty part, check whether the client has left."""
        self.req.ensure_headers_sent()
        if part:
            self.req.conn.wfile.send()
        else:
            self.req.conn.check_client()

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]  # cheroot's stubs have no types
        """Replace cheroot's method, which is slow, and merges the names of headers."""
        request, server = self.req, self.req.server
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.inheaders.items()}
        return {
            **{_get_variable_name(name): value for name, value in headers.items() if "_" not in name},
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


def _get_variable_name(header: str) -> str:
    name = header.upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"


class Server(wsgi.Server):
    """Listener on one address. Set its `wsgi_app` before it serves.

    Args:
        may_be_absent: whether to listen even if this machine does not have the address yet. This works only on Linux;
            other systems raise OSError.
        options: arguments of cheroot's server.
    """

    _connections: Connections
    """Replaces cheroot's `ConnectionManager`, which has methods of the same names."""

    def __init__(self, address: tuple[str, int], *, may_be_absent: bool = False, **options: Any) -> None:
        super().__init__(address, None, **options)
        self._may_be_absent = may_be_absent
        self.gateway = EnvironmentBuilder
        self.max_request_header_size = MAX_HEAD_BYTES

    def prepare(self) -> None:
        super().prepare()
        self._connections.close()
        self._connections = Connections(self.socket, partial(Connection, self, Parser), self._enqueue, MAX_HEAD_BYTES)

    def bind_socket(self, socket_: socket.socket, bind_addr: tuple[str, int]) -> socket.socket:  # type: ignore[override]
        if self._may_be_absent and sys.platform == "linux":
            socket_.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)
        try:
            return cast("socket.socket", super().bind_socket(socket_, bind_addr))  # type: ignore[no-untyped-call]
        except OSError:
            socket_.close()  # cheroot leaves it open
            raise

    def _enqueue(self, connection: Connection) -> None:
        connection.socket.settimeout(self.timeout)
        self.requests.put(connection)

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        logger.log(level, "%s", msg, exc_info=traceback)


# --- headers ---


@lru_cache(maxsize=1)
def _format_date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode()


def read_headers(read_line: Callable[[], bytes], headers: MutableMapping[bytes, bytes]) -> None:
    """Read the fields up to the empty line into `headers`, with names in title case, as cheroot expects them.

    Repeated fields are joined by commas, as for signatures of version 4, unless the field can have only one value.

    Raises:
        ValueError: a field is malformed, ambiguous or repeated; the message names it.
    """
    while (line := read_line()) != b"\r\n":
        if not line.endswith(b"\r\n"):
            raise ValueError("Headers must end with an empty line, and each line with CR LF.")
        name, value = _parse_field(line[:-2])
        key = name.title()
        if key in headers:
            if _has_single_value(name.decode().lower()):
                raise ValueError(f"The header {name.decode()} is repeated; send it once.")
            value = headers[key] + b"," + value
        headers[key] = value


def _parse_field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not _TOKEN.fullmatch(name):  # also folded lines, and spaces before the colon
        raise ValueError(f"The header line {_quote(line)} must start with a name of ASCII letters and a colon.")
    value = value.strip(b" \t")
    if _CONTROL_CHARACTER.search(value):
        raise ValueError(f"The header {name.decode()} contains a control character.")
    return name, value


def _has_single_value(name: str) -> bool:
    return name in _SINGLE_VALUE_HEADERS or (
        name.startswith(_SINGLE_VALUE_PREFIXES) and not name.startswith(_REPEATABLE_PREFIXES)
    )


def check_framing(protocol: bytes, headers: Mapping[bytes, bytes]) -> None:
    """Raise ValueError if two readers could disagree about the end of the request, or about its host."""
    length, coding = headers.get(b"Content-Length"), headers.get(b"Transfer-Encoding")
    if length is not None and not _LENGTH.fullmatch(length):
        raise ValueError(f"Content-Length is {_quote(length)}; it must be a number of bytes in decimal digits.")
    if coding is not None and (length is not None or protocol != b"HTTP/1.1"):
        raise ValueError("Transfer-Encoding cannot be combined with Content-Length or HTTP/1.0.")
    if protocol == b"HTTP/1.1" and b"Host" not in headers:
        raise ValueError("The header Host is missing.")


def _quote(text: bytes) -> str:
    return repr(text[:40].decode("latin-1"))
