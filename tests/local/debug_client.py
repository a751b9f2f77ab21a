"""A client of the Debug Adapter Protocol, with which editors such as VS Code control debugpy.

https://microsoft.github.io/debug-adapter-protocol/specification
"""

import contextlib
import itertools
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 90
LOOPBACK = "127.0.0.1"


class DebugClient:
    """A debugger. Call `attach` first. All methods except `send` and `close` wait for the debug adapter."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._input = connection.makefile("rb")
        self._numbers = itertools.count(1)
        self._thread_id = 0

    def close(self) -> None:
        self._input.close()

    def send(self, command: str, **arguments: Any) -> int:
        number = next(self._numbers)
        message = {"seq": number, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(message).encode()
        self._connection.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return number

    def request(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send a request, and return the body of its response."""
        number = self.send(command, **arguments)
        response = self._wait_for(lambda message: message.get("request_seq") == number)
        assert response["success"], response
        body: dict[str, Any] = response.get("body", {})
        return body

    def attach(self, breakpoints: dict[str, list[int]]) -> None:
        """Attach and set breakpoints: line numbers by path in the host. The program starts afterwards."""
        self.request("initialize", adapterID="debugpy", pathFormat="path", linesStartAt1=True, columnsStartAt1=True)
        self.send("attach", justMyCode=True)
        self.wait_for_event("initialized")
        for path, lines in breakpoints.items():
            self.request("setBreakpoints", source={"path": path}, breakpoints=[{"line": line} for line in lines])
        self.request("configurationDone")

    def wait_for_event(self, name: str) -> dict[str, Any]:
        body: dict[str, Any] = self._wait_for(lambda message: message.get("event") == name).get("body", {})
        return body

    def wait_for_stop(self) -> tuple[str, int]:
        """Wait until the program stops; return the name of the file and the line."""
        self._thread_id = self.wait_for_event("stopped")["threadId"]
        frame = self.request("stackTrace", threadId=self._thread_id)["stackFrames"][0]
        return Path(frame["source"]["path"]).name, frame["line"]

    def evaluate(self, expression: str) -> str:
        frame = self.request("stackTrace", threadId=self._thread_id)["stackFrames"][0]
        return str(self.request("evaluate", expression=expression, frameId=frame["id"])["result"])

    def resume(self) -> None:
        self.request("continue", threadId=self._thread_id)

    def _wait_for(self, is_match: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while not is_match(message := self._read()):
            pass
        return message

    def _read(self) -> dict[str, Any]:
        length = 0
        while line := self._input.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        assert length, "the adapter closed the connection"
        message: dict[str, Any] = json.loads(self._input.read(length))
        return message


@contextlib.contextmanager
def connect(port: int) -> Iterator[DebugClient]:
    """Connect to debugpy when it listens."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while (connection := _try_connect(port)) is None:
        assert time.monotonic() < deadline, f"no debugger listens on port {port} within {TIMEOUT_SECONDS} s"
        time.sleep(0.1)
    with connection:
        client = DebugClient(connection)
        try:
            yield client
        finally:
            client.close()


def _try_connect(port: int) -> socket.socket | None:
    """Return a connection on which the adapter has sent its first event; None if the adapter has sent no event yet.

    An accepted connection alone does not show that the adapter listens, because the engine accepts connections earlier.
    """
    with contextlib.suppress(OSError):
        connection = socket.create_connection((LOOPBACK, port), TIMEOUT_SECONDS)
        if connection.recv(1, socket.MSG_PEEK):
            return connection
        connection.close()
    return None
