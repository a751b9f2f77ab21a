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

from microjobs_orchestrator.local.runtimes.docker.container_pipes import WOULD_BLOCK_ERRORS, close_exec, find_exit_code
from microjobs_orchestrator.local.runtimes.docker.engine import UNREACHABLE_ERRORS
from microjobs_orchestrator.local.runtimes.docker.log_frames import FrameSplitter

CHUNK_BYTES = 1 << 16

_CLOSED_ERRORS = (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError)


class TunnelSocket(socket.socket):
    """The caller's end of a tunnel.

    If the tunnel breaks, `recv` and `recv_into` raise ConnectionResetError at the end of the data. Without this error,
    a truncated response that has no Content-Length would look complete. A pair of Unix sockets does not raise the
    error, because one end cannot reset the other end.
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

    The tunnel ends when the command ends, or when the caller closes the socket or shuts down its sending direction. The
    start of the command has the timeout of the engine's client. The socket has no timeout.

    Raises:
        docker.errors.APIError: the engine refuses the command, or the container has ended.
    """
    assert container.client is not None  # noqa: S101  for mypy
    api = container.client.api
    exec_id: str = api.exec_create(container.id, list(command), stdin=True, stderr=False)["Id"]
    connection: Any = api.exec_start(exec_id, socket=True)
    stream = getattr(connection, "_sock", connection)  # docker-py returns a file for reading, not the socket
    caller_end, tunnel_end = socket.socketpair()
    caller = TunnelSocket(caller_end.family, caller_end.type, caller_end.proto, caller_end.detach())

    def run() -> None:
        try:
            with tunnel_end:
                caller.is_complete = _copy(stream, tunnel_end) and _has_succeeded(api, exec_id)
        finally:
            close_exec(connection)

    threading.Thread(target=run, daemon=True).start()
    return caller


def _has_succeeded(api: Any, exec_id: str) -> bool:
    try:
        return find_exit_code(api, exec_id) == 0
    except (APIError, *UNREACHABLE_ERRORS):
        return False


def _copy(stream: Any, tunnel_end: socket.socket) -> bool:
    """Copy in both directions. Return whether the command's output has ended.

    One thread copies both directions, because two threads must not use one TLS connection at the same time.
    """
    for end in (stream, tunnel_end):
        end.setblocking(False)
    splitter = FrameSplitter()
    incoming = _Flow(stream, tunnel_end, lambda chunk: b"".join(data for _, data in splitter.split(chunk)))
    outgoing = _Flow(tunnel_end, stream, bytes)
    try:
        while not (incoming.has_ended or outgoing.has_ended):
            has_moved = incoming.move() | outgoing.move()
            if not (has_moved or _wait(stream, tunnel_end, incoming, outgoing)):
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
        with contextlib.suppress(*WOULD_BLOCK_ERRORS):
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
        except _CLOSED_ERRORS:  # the bytes are dropped, because the other direction may still have data
            return len(self.pending)


def _wait(stream: Any, tunnel_end: socket.socket, incoming: _Flow, outgoing: _Flow) -> bool:
    """Wait until a direction can move. Return False if the caller has closed its socket."""
    poll = select.poll()
    poll.register(tunnel_end, _make_event_mask(receives=not outgoing.pending, sends=bool(incoming.pending)))
    if events := _make_event_mask(receives=not incoming.pending, sends=bool(outgoing.pending)):
        poll.register(stream, events)
    hang_up = (tunnel_end.fileno(), select.POLLHUP)
    return hang_up not in [(number, mask & select.POLLHUP) for number, mask in poll.poll()]


def _make_event_mask(*, receives: bool, sends: bool) -> int:
    return (select.POLLIN if receives else 0) | (select.POLLOUT if sends else 0)
