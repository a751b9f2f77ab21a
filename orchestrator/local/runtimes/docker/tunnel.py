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
_CLOSED_BY_CALLER = "the caller closed its socket, or its sending direction"


class TunnelSocket(socket.socket):
    """The caller's end of a tunnel.

    If the tunnel breaks, `recv` and `recv_into` raise ConnectionResetError at the end of the data. Without this error,
    a truncated response that has no Content-Length would look complete. A pair of Unix sockets does not raise the
    error, because one end cannot reset the other end.
    """

    break_reason: str | None = "the command has not ended"
    """Why the command's output is incomplete. None after the command has succeeded."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        received = super().recv(size, flags)
        self._check(len(received))
        return received

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        count = super().recv_into(buffer, nbytes, flags)
        self._check(count)
        return count

    def _check(self, count: int) -> None:
        if not count and self.break_reason:
            raise ConnectionResetError(f"the connection through the engine broke: {self.break_reason}")


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
                caller.break_reason = _copy(stream, tunnel_end) or _find_failure(api, exec_id)
        finally:
            close_exec(connection)

    threading.Thread(target=run, daemon=True).start()
    return caller


def _find_failure(api: Any, exec_id: str) -> str | None:
    """Return why a command whose output has ended did not succeed; None if it succeeded."""
    try:
        code = find_exit_code(api, exec_id)
    except (APIError, *UNREACHABLE_ERRORS) as error:
        return f"the engine does not say how the command ended: {error}"
    if code is None:
        return "the engine ended the command's output while the command ran"
    return f"the command ended with exit code {code}" if code else None


def _copy(stream: Any, tunnel_end: socket.socket) -> str | None:
    """Copy in both directions until the command's output ends. Return the reason if the copy ends earlier.

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
                return _CLOSED_BY_CALLER
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return None if incoming.has_ended else _CLOSED_BY_CALLER


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
