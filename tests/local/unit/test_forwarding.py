"""Tests of a guard that forwards the connections of hosts to the server, without a container."""

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from docker.errors import NotFound

from microjobs_orchestrator.local.guard import carrier, forwarding
from microjobs_orchestrator.local.runtimes.docker import forwarding as docker_forwarding
from microjobs_orchestrator.local.runtimes.docker.forwarding import Forwarding
from tests.polling import wait_until

TIMEOUT_SECONDS = 60.0
THREAD_NAME = "forwarding"
REPLY = bytes(range(256)) * 1000


class Guard:
    """A guard whose carriers are processes of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.is_removed = False
        self.client_listener = socket.create_server(("127.0.0.1", 0))
        self._carrier_listener = socket.socket(socket.AF_UNIX)
        self._carrier_listener.bind(str(folder / forwarding.CARRIER_SOCKET))
        self._carrier_listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            forwarding.serve(self.client_listener, self._carrier_listener)

    def open_tunnel(self, _: object, command: Sequence[str]) -> socket.socket:
        """Start a process in place of a command in the guard's container."""
        if self.is_removed:
            raise NotFound("no such container")
        server_end, carrier_end = socket.socketpair()
        with carrier_end:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, *command[1:]],
                    cwd=self._folder,
                    stdin=carrier_end.fileno(),
                    stdout=carrier_end.fileno(),
                )
            )
        return server_end

    def close(self) -> None:
        self.is_removed = True
        for process in self.processes:
            process.kill()
            process.wait()
        self._carrier_listener.close()
        self.client_listener.close()


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guard]:
    earlier_threads, new_guard = set(threading.enumerate()), Guard(tmp_path)
    monkeypatch.setattr(docker_forwarding, "open_tunnel", new_guard.open_tunnel)
    monkeypatch.setattr(docker_forwarding, "make_command", lambda module: ["python", "-m", module.__name__])
    yield new_guard
    new_guard.close()
    for thread in set(threading.enumerate()) - earlier_threads:
        if thread.name.startswith(THREAD_NAME):
            thread.join(TIMEOUT_SECONDS)
            assert not thread.is_alive()


@pytest.fixture
def server_port() -> Iterator[int]:
    """The port of a server that waits for two connections, and then answers each request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        barrier = threading.Barrier(2)

        def answer(connection: socket.socket) -> None:
            with connection:
                request = connection.recv(100)
                barrier.wait(TIMEOUT_SECONDS)
                connection.sendall(request + REPLY)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


def forward(port: int) -> None:
    Forwarding(port).start(cast("Any", SimpleNamespace(name="guard")))


def connect_and_send(guard: Guard, request: bytes) -> socket.socket:
    connection = socket.create_connection(guard.client_listener.getsockname(), TIMEOUT_SECONDS)
    connection.sendall(request)
    return connection


def receive(connection: socket.socket) -> bytes:
    with connection:
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_connections_at_the_same_time_reach_the_server(guard: Guard, server_port: int) -> None:
    forward(server_port)
    connections = [connect_and_send(guard, b"a"), connect_and_send(guard, b"b")]
    assert [receive(connection) for connection in connections] == [b"a" + REPLY, b"b" + REPLY]


def test_connection_is_not_given_to_a_carrier_whose_server_has_ended(guard: Guard, server_port: int) -> None:
    tunnel = guard.open_tunnel(None, ["python", "-m", carrier.__name__])
    tunnel.close()
    guard.processes[0].wait(TIMEOUT_SECONDS)
    forward(server_port)
    connections = [connect_and_send(guard, b"a"), connect_and_send(guard, b"b")]
    assert {receive(connection)[:1] for connection in connections} == {b"a", b"b"}


def test_forwarding_ends_with_its_guard(guard: Guard, server_port: int) -> None:
    earlier_threads = set(threading.enumerate())
    forward(server_port)
    (thread,) = [
        thread for thread in set(threading.enumerate()) - earlier_threads if thread.name.startswith(THREAD_NAME)
    ]
    wait_until(lambda: guard.processes, bool)
    assert thread.is_alive()
    guard.close()
    thread.join(TIMEOUT_SECONDS)
    assert not thread.is_alive()
