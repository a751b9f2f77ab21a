"""Connections to a port of a container through the engine's API, for engines whose networks this machine cannot reach.

A command in the container copies between its standard streams and the port. The engine sends the command's output in
frames with a header of 8 bytes; see `log_frames`.
"""

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any

from docker.errors import APIError
from docker.models.containers import Container

from microjobs_orchestrator.local.runtimes.docker.container_pipes import NOT_READY, close_exec, find_exit_code
from microjobs_orchestrator.local.runtimes.docker.engine import UNREACHABLE_ERRORS
from microjobs_orchestrator.local.runtimes.docker.log_frames import FrameSplitter

CHUNK_BYTES = 1 << 16

_CLOSED = (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError)


class TunnelSocket(socket.socket):
    """The caller's end of a tunnel.

    If the tunnel breaks, the end of the data is an error. Without this error, a truncated response without a length
    would look complete, because one end of a pair of Unix sockets cannot reset the other end.
    """

    is_complete = False
    """Whether the command has succeeded, so that its output is complete."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        received = super().recv(size, flags)
        self._check(len(received))
        return received

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        count = super().recv_into(buffer, nbytes, flags)
        self._check(count)
        return count

    def _check(self, count: int) -> None:
        if not count and not self.is_complete:
            raise ConnectionResetError("the connection through the engine broke")


def open_tunnel(container: Container, command: Sequence[str]) -> socket.socket:
    """Start a command in a container, and return a socket that is connected to its standard input and output.

    The tunnel ends when the caller closes the socket or shuts down a direction. The timeout is that of the engine's
    client.

    Raises:
        docker.errors.APIError: the engine refuses the command, or the container has ended.
    """
    assert container.client is not None  # noqa: S101  for mypy
    api = container.client.api
    exec_id: str = api.exec_create(container.id, list(command), stdin=True, stderr=False)["Id"]
    connection: Any = api.exec_start(exec_id, socket=True)
    stream = getattr(connection, "_sock", connection)  # docker-py returns a file for reading, not the socket
    ours, theirs = socket.socketpair()
    caller = TunnelSocket(ours.family, ours.type, ours.proto, ours.detach())

    def run() -> None:
        try:
            with theirs:
                caller.is_complete = _copy(stream, theirs) and _has_succeeded(api, exec_id)
        finally:
            close_exec(connection)

    threading.Thread(target=run, daemon=True).start()
    return caller


def _has_succeeded(api: Any, exec_id: str) -> bool:
    try:
        return find_exit_code(api, exec_id) == 0
    except (APIError, *UNREACHABLE_ERRORS):
        return False


def _copy(stream: Any, caller: socket.socket) -> bool:
    """Copy in both directions, in one thread, as TLS requires. Return whether the command's output has ended."""
    for end in (stream, caller):
        end.setblocking(False)
    splitter = FrameSplitter()
    incoming = _Flow(stream, caller, lambda chunk: b"".join(data for _, data in splitter.split(chunk)))
    outgoing = _Flow(caller, stream, bytes)
    try:
        while not (incoming.has_ended or outgoing.has_ended):
            has_moved = incoming.move() | outgoing.move()
            if not (has_moved or _wait(stream, caller, incoming, outgoing)):
                return False
    except OSError:
        return False
    return incoming.has_ended


class _Flow:
    """One direction of a tunnel. Its methods do not block."""

    def __init__(self, source: Any, sink: Any, decode: Callable[[bytes], bytes]) -> None:
        self._source = source
        self._sink = sink
        self._decode = decode
        self.pending = b""
        """Received bytes that are not yet sent."""
        self.has_ended = False

    def move(self) -> bool:
        """Send pending bytes, or receive more if there are none. Return whether this was possible."""
        with contextlib.suppress(*NOT_READY):
            if self.pending:
                self.pending = self.pending[self._send() :]
            else:
                chunk = self._source.recv(CHUNK_BYTES)
                self.has_ended, self.pending = not chunk, self._decode(chunk)
            return True
        return False

    def _send(self) -> int:
        try:
            return int(self._sink.send(self.pending))
        except _CLOSED:  # the other direction may still have data
            return len(self.pending)


def _wait(stream: Any, caller: socket.socket, incoming: _Flow, outgoing: _Flow) -> bool:
    """Wait until a direction can move. Return False if the caller has closed its socket."""
    poll = select.poll()
    poll.register(caller, _events(receives=not outgoing.pending, sends=bool(incoming.pending)))
    if events := _events(receives=not incoming.pending, sends=bool(outgoing.pending)):
        poll.register(stream, events)
    return (caller.fileno(), select.POLLHUP) not in [(number, found & select.POLLHUP) for number, found in poll.poll()]


def _events(*, receives: bool, sends: bool) -> int:
    return (select.POLLIN if receives else 0) | (select.POLLOUT if sends else 0)
