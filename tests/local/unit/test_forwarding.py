"""Tests of connections of hosts that a guard forwards to the server, without a container."""

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
from tests.local.clients import wait_until

TIMEOUT = 20.0
THREAD_NAME = "forwarding"
REPLY = bytes(range(256)) * 1000


class Guard:
    """A guard whose carriers are processes of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.is_removed = False
        self.clients = socket.create_server(("127.0.0.1", 0))
        self._carriers = socket.socket(socket.AF_UNIX)
        self._carriers.bind(str(folder / forwarding.CARRIER_SOCKET))
        self._carriers.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            forwarding.serve(self.clients, self._carriers)

    def open_tunnel(self, _: object, command: Sequence[str]) -> socket.socket:
        """Start a process in place of a command in the guard's container."""
        if self.is_removed:
            raise NotFound("no such container")
        ours, theirs = socket.socketpair()
        with theirs:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, *command[1:]], cwd=self._folder, stdin=theirs.fileno(), stdout=theirs.fileno()
                )
            )
        return ours

    def close(self) -> None:
        self.is_removed = True
        for process in self.processes:
            process.kill()
            process.wait()
        self._carriers.close()
        self.clients.close()


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guard]:
    before, started = set(threading.enumerate()), Guard(tmp_path)
    monkeypatch.setattr(docker_forwarding, "open_tunnel", started.open_tunnel)
    monkeypatch.setattr(docker_forwarding, "make_command", lambda module: ["python", "-m", module.__name__])
    yield started
    started.close()
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith(THREAD_NAME):
            thread.join(TIMEOUT)
            assert not thread.is_alive()


@pytest.fixture
def server() -> Iterator[int]:
    """A server that waits for two connections, then answers each request; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        barrier = threading.Barrier(2)

        def answer(connection: socket.socket) -> None:
            with connection:
                request = connection.recv(100)
                barrier.wait(TIMEOUT)
                connection.sendall(request + REPLY)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


def forward(port: int) -> None:
    Forwarding(port).start(cast("Any", SimpleNamespace(name="guard")))


def send(guard: Guard, request: bytes) -> socket.socket:
    connection = socket.create_connection(guard.clients.getsockname(), TIMEOUT)
    connection.sendall(request)
    return connection


def receive(connection: socket.socket) -> bytes:
    with connection:
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_connections_at_the_same_time_reach_the_server(guard: Guard, server: int) -> None:
    forward(server)
    connections = [send(guard, b"a"), send(guard, b"b")]
    assert [receive(connection) for connection in connections] == [b"a" + REPLY, b"b" + REPLY]


def test_connection_is_not_given_to_a_carrier_whose_server_has_ended(guard: Guard, server: int) -> None:
    dead = guard.open_tunnel(None, ["python", "-m", carrier.__name__])
    dead.close()
    guard.processes[0].wait(TIMEOUT)
    forward(server)
    connections = [send(guard, b"a"), send(guard, b"b")]
    assert {receive(connection)[:1] for connection in connections} == {b"a", b"b"}


def test_forwarding_ends_with_its_guard(guard: Guard, server: int) -> None:
    before = set(threading.enumerate())
    forward(server)
    (thread,) = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith(THREAD_NAME)]
    wait_until(lambda: guard.processes, bool)
    assert thread.is_alive()
    guard.close()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
