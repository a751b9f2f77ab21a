"""HTTP: cheroot, with an answer of AWS's form to what is no HTTP, and limits on what it reads before anybody looks."""

import contextlib
import logging
import socket
from typing import Any
from xml.etree import ElementTree

from cheroot import wsgi
from cheroot.server import HTTPConnection, HTTPRequest

from orchestrator.local.s3.wire import Gateway

logger = logging.getLogger(__name__)

MOST_HEADER_BYTES = 64 << 10
"""Of a request's first line and headers together; AWS takes 8 KB of each."""

LINGER_SECONDS = 1.0
LINGER_BYTES = 1 << 20
"""What is read, and for how long, of a request that was refused: else the client is reset before it has its answer."""


class Parser(HTTPRequest):
    """A request, from its first line to the end of its headers."""

    def read_request_line(self) -> bool:
        try:
            return bool(super().read_request_line())  # type: ignore[no-untyped-call]
        except ValueError as error:  # such as an address in brackets that is none
            self.simple_response("400 Bad Request", f"Malformed Request-URI: {error}")
            return False

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
