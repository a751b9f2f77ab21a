"""A client of the web console without a browser."""

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.home import Home
from tests.local.clients import LocalServer
from tests.local.security.wire import Response, Sender

CONSOLE_PATH = "/_microjobs/console/"
API_PATH = f"{CONSOLE_PATH}api/"
SECRET_HEADER = "X-Microjobs-Console"  # noqa: S105  the name of a header


@dataclass
class Console:
    """A client that sends what a browser sends."""

    sender: Sender
    cookie: str = ""
    secret: str = ""

    def make_headers(self, changes: Mapping[str, str | None]) -> dict[str, str]:
        """Return the headers of a request of the console's page, with changes; the value None removes a header."""
        page_headers = {
            "Origin": f"http://{self.sender.host}",
            "Sec-Fetch-Site": "same-origin",
            "Content-Type": "application/json",
            "Cookie": self.cookie,
            SECRET_HEADER: self.secret,
        }
        return {name: value for name, value in {**page_headers, **changes}.items() if value is not None}

    def post(self, target: str, body: Any, **changes: str | None) -> Response:
        """Send a POST request. Underscores in the names of changed headers stand for hyphens."""
        headers = self.make_headers({name.replace("_", "-"): value for name, value in changes.items()})
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.sender.send_raw("POST", target, headers, content)

    def open(self, token: str, **members: Any) -> Response:
        """Open a session with a one-time token."""
        answer = self.post(f"{API_PATH}sessions", {"token": token, **members})
        if answer.status == 200:
            self.secret = json.loads(answer.body)["secret"]
            self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return answer


def make_token(server: LocalServer, home: Home | None = None) -> str:
    """Return a one-time token for the server, signed with the key of the server's home or of another home."""
    address = control.make_console_address(home or server.home, server.address)
    return urlsplit(address).fragment.removeprefix("token=")


def open_stream(console: Console) -> socket.socket:
    """Request a stream of changes; return the connection, on which the response arrives."""
    name, _, port = console.sender.host.partition(":")
    connection = socket.create_connection((name, int(port)), timeout=20)
    fields = {"Host": console.sender.host, **console.make_headers({"Content-Length": "2"})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    connection.sendall(f"POST {API_PATH}changes HTTP/1.1\r\n{lines}\r\n{{}}".encode())
    return connection


def read_status(connection: socket.socket) -> int:
    return int(connection.recv(4096).split()[1])
