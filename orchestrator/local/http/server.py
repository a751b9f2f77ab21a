"""Cheroot's WSGI server with strict parsing of requests, and errors in AWS's form for what is not valid HTTP."""

import contextlib
import logging
import re
import socket
from typing import Any
from xml.etree import ElementTree

from cheroot import wsgi
from cheroot.server import HTTPConnection, HTTPRequest
from cheroot.wsgi import Gateway_10

from orchestrator.local.http.headers import check_framing, read_headers

logger = logging.getLogger(__name__)

MOST_HEADER_BYTES = 64 << 10
"""Of a request's first line and headers together; AWS takes 8 KB of each."""

LINGER_SECONDS = 1.0
LINGER_BYTES = 1 << 20
"""What is read, and for how long, of a request that was refused: else the client is reset before it has its answer."""


HEADERS = "microjobs.headers"
"""Key of a WSGI environment for all headers under their own names: WSGI takes `x-amz-meta-a_b` for `x-amz-meta-a-b`."""

_TARGET = re.compile(rb"[!-~]+")
_PROTOCOL = re.compile(rb"HTTP/[0-9]\.[0-9]")


class Parser(HTTPRequest):
    """Parser of a request's first line and headers."""

    def read_request_line(self) -> bool:
        try:
            is_valid = bool(super().read_request_line())  # type: ignore[no-untyped-call]
        except ValueError as error:  # such as an address in brackets that is none
            self.simple_response("400 Bad Request", f"Malformed Request-URI: {error}")
            return False
        # Cheroot takes `HTTP/1.+1`, and splits the target by code that leaves out tabs and line ends.
        if is_valid and not (_TARGET.fullmatch(self.uri) and _PROTOCOL.fullmatch(self.request_protocol)):
            self.simple_response("400 Bad Request", "Malformed Request-Line")
            return False
        return is_valid

    def read_request_headers(self) -> bool:
        """Replaces cheroot's reader, which lets the last of several values win and takes `+5` for a length."""
        try:
            read_headers(self.rfile, self.inheaders)
            check_framing(self.request_protocol, self.inheaders)
        except ValueError as error:
            self.simple_response("400 Bad Request", str(error))
            return False
        return bool(super().read_request_headers())  # type: ignore[no-untyped-call]

    def simple_response(self, status: str | int, msg: str = "") -> None:
        """Answer what never comes to the application, and close the connection: nobody knows where the next begins."""
        reason = str(status).partition(" ")[2]
        root = ElementTree.Element("Error")
        for name, text in (("Code", reason.title().replace(" ", "")), ("Message", msg or reason)):
            ElementTree.SubElement(root, name).text = text
        body = ElementTree.tostring(root, "utf-8", xml_declaration=True)
        head = f"Connection: close\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.conn.wfile.write(f"{self.server.protocol} {status}\r\n{head}".encode("latin-1") + body)
            self.conn.socket.shutdown(socket.SHUT_WR)
            self.conn.socket.settimeout(LINGER_SECONDS)
            left = LINGER_BYTES
            while left > 0 and (read := len(self.conn.socket.recv(1 << 16))):
                left -= read

    @staticmethod
    def header_reader(*_: object) -> None:
        """The headers are read by `read_request_headers`."""


class Gateway(Gateway_10):
    """Makes a WSGI environment in which a header with an underscore in its name cannot pass for another header."""

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]  # cheroot's stubs have no types
        made: dict[str, Any] = super().get_environ()  # type: ignore[no-untyped-call]
        environ = {name: value for name, value in made.items() if not name.startswith(("HTTP_", "CONTENT_"))}
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self.req.inheaders.items()}
        environ |= {_variable(name): value for name, value in headers.items() if "_" not in name}
        return environ | {HEADERS: headers}


def _variable(header: str) -> str:
    name = header.upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"


class Connection(HTTPConnection):
    RequestHandlerClass = Parser


class Server(wsgi.Server):
    """A listener. Give it its `wsgi_app` before it serves."""

    ConnectionClass = Connection

    def __init__(self, address: tuple[str, int], **options: Any) -> None:
        super().__init__(address, None, **options)
        self.gateway = Gateway
        self.max_request_header_size = MOST_HEADER_BYTES

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        logger.log(level, "%s", msg, exc_info=traceback)
