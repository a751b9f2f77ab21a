"""Tunnels through an engine's API, with an engine in this process."""

import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from microjobs_orchestrator.local.certificates import make_certificate
from microjobs_orchestrator.local.resources.models.client import Client, NoResponseError
from microjobs_orchestrator.local.runtimes.docker import container_pipes
from microjobs_orchestrator.local.runtimes.docker.log_frames import HEADER
from microjobs_orchestrator.local.runtimes.docker.tunnel import open_tunnel

Tls = tuple[ssl.SSLContext, ssl.SSLContext]
Command = Callable[[socket.socket], None]
CONTENT = bytes(range(256)) * 20_000
FRAME_BYTES = 10_000


class RecordingSocket(ssl.SSLSocket):
    """A connection that records the threads that use it."""

    threads: ClassVar[set[int]] = set()

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        self.threads.add(threading.get_ident())
        return super().recv(buflen, flags)

    def send(self, data: Any, flags: int = 0) -> int:
        self.threads.add(threading.get_ident())
        return super().send(data, flags)


class Engine:
    """A fake engine, which is also its only container. The container runs one command.

    Args:
        command: the command, a function that the engine calls with its end of the connection.
        code: the command's exit code; None while it runs.
        tls: contexts of the engine and of its client, if their connection is encrypted.
    """

    def __init__(self, command: Command, code: int | None = 0, tls: Tls | None = None) -> None:
        self.id = "container"
        self.client = self.api = self
        self._command, self._code, self._tls = command, code, tls

    def exec_create(self, *_: object, **__: object) -> Mapping[str, str]:
        return {"Id": "command"}

    def exec_start(self, *_: object, **__: object) -> socket.socket:
        engine_end, client_end = socket.socketpair()
        threading.Thread(target=self._run, args=(engine_end,), daemon=True).start()
        return self._tls[1].wrap_socket(client_end, server_hostname="engine") if self._tls else client_end

    def _run(self, connection: socket.socket) -> None:
        stream = self._tls[0].wrap_socket(connection, server_side=True) if self._tls else connection
        with stream, suppress(OSError):
            self._command(stream)

    def exec_inspect(self, _: str) -> Mapping[str, object]:
        return {"Running": self._code is None, "ExitCode": self._code}

    def connect(self, timeout: float = 20) -> socket.socket:
        connection = open_tunnel(cast("Any", self), ["command"])
        connection.settimeout(timeout)
        return connection


@pytest.fixture(params=["plain", "TLS"])
def tls(request: pytest.FixtureRequest, tmp_path: Path) -> Tls | None:
    """The contexts of the engine and of its client; None for a connection that is not encrypted."""
    RecordingSocket.threads.clear()
    if request.param == "plain":
        return None
    files = tmp_path / "certificate", tmp_path / "key"
    for file, content in zip(files, make_certificate("engine"), strict=True):
        file.write_bytes(content)
    engine, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    engine.load_cert_chain(*files)
    client.check_hostname = False
    client.sslsocket_class = RecordingSocket
    client.load_verify_locations(files[0])
    return engine, client


def make_frames(content: bytes) -> bytes:
    parts = [content[start : start + FRAME_BYTES] for start in range(0, len(content), FRAME_BYTES)]
    return b"".join(HEADER.pack(1, len(part)) + part for part in parts)


def echo(stream: socket.socket) -> None:
    while chunk := stream.recv(1 << 16):
        stream.sendall(make_frames(chunk))


def respond(stream: socket.socket) -> None:
    """Answer a request with a response that ends with the connection."""
    stream.recv(1 << 16)
    stream.sendall(make_frames(b"HTTP/1.0 200 OK\r\n\r\nthe answer"))


def refuse(stream: socket.socket) -> None:
    """Answer before the request is complete."""
    stream.recv(1)
    stream.sendall(make_frames(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"))


def test_both_directions_are_copied_at_the_same_time(tls: Tls | None) -> None:
    with Engine(echo, tls=tls).connect() as connection:
        sender = threading.Thread(target=connection.sendall, args=(CONTENT,), daemon=True)
        sender.start()
        received = b""
        while len(received) < len(CONTENT):
            received += connection.recv(1 << 16)
        sender.join()
    assert received == CONTENT
    assert len(RecordingSocket.threads) == (1 if tls else 0)  # two threads cannot share a TLS connection


def test_output_is_complete_if_the_command_succeeds(tls: Tls | None) -> None:
    answer = BytesIO()
    Client(Engine(respond, tls=tls).connect).request("GET", "/x", timeout=20, into=answer)
    assert answer.getvalue() == b"the answer"


@pytest.mark.parametrize(
    ("code", "reason"), [(1, "exit code 1$"), (137, "exit code 137$"), (None, "while the command ran$")]
)
def test_truncated_response_raises_with_the_reason(
    code: int | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response has no length, so only the exit code shows that the response is incomplete."""
    monkeypatch.setattr(container_pipes, "EXIT_CODE_TIMEOUT", 0.05)
    with pytest.raises(NoResponseError, match=f"broke: .*{reason}"):
        Client(Engine(respond, code).connect).request("GET", "/x", timeout=20)


def test_early_response_reaches_the_caller() -> None:
    with Engine(refuse).connect() as connection:
        with suppress(ConnectionError):
            connection.sendall(CONTENT)
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
