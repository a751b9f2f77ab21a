"""Relays TCP connections to the host's port, for callers that know the secret."""

import contextlib
import socket
import struct
import threading
import time
from collections import deque

from microjobs_orchestrator.local.guard import proof
from microjobs_orchestrator.local.guard.settings import RELAY_PORT

DEFAULT_PORT = 8080
"""The port on which containers of SageMaker listen, unless a variable names another port."""
MAX_CONNECTIONS = 1024
"""Maximum number of callers that have proven that they know the secret. The server sends fewer concurrent requests."""
MAX_UNPROVEN_CALLERS = 64
"""Maximum number of callers that have not yet proven that they know the secret. Beyond this number, a new caller
replaces the oldest of these callers."""
PROOF_TIMEOUT = 3.0
"""Seconds that each read and each write of the proof may take."""
CONNECT_TIMEOUT = 5.0
"""Seconds to connect to the host."""
RETRY_DELAY = 0.1
"""Seconds before the next attempt to accept a caller."""
CHUNK_BYTES = 1 << 17
FORBIDDEN_RESPONSE = b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Relay:
    """Connects callers to one port of the host.

    Args:
        secret: a caller must prove that it knows this secret.
        target_port: the host's port.
    """

    def __init__(self, secret: str, target_port: int) -> None:
        self._secret = secret
        self._target_port = target_port
        self._unproven_callers: deque[socket.socket] = deque()
        self._connection_slots = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def serve(self, listener: socket.socket) -> None:
        """Accept callers until the listener is closed."""
        while True:
            try:
                caller, _ = listener.accept()
            except ConnectionAbortedError:
                continue
            except OSError:
                if listener.fileno() < 0:
                    return
                time.sleep(RETRY_DELAY)  # out of file descriptors
                continue
            self._admit(caller)

    def _admit(self, caller: socket.socket) -> None:
        self._unproven_callers.append(caller)
        if len(self._unproven_callers) > MAX_UNPROVEN_CALLERS:
            with contextlib.suppress(OSError, IndexError):  # the thread of the connection then closes it
                self._unproven_callers.popleft().shutdown(socket.SHUT_RDWR)
        threading.Thread(target=self._handle, args=(caller,), daemon=True).start()

    def _handle(self, caller: socket.socket) -> None:
        with caller, contextlib.suppress(OSError):
            if self._check_proof(caller) and self._connection_slots.acquire(blocking=False):
                try:
                    self._connect(caller)
                finally:
                    self._connection_slots.release()

    def _check_proof(self, caller: socket.socket) -> bool:
        """Let a caller prove that it knows the secret, and return whether it has done so."""
        caller.settimeout(PROOF_TIMEOUT)
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            proof.prove_to_caller(caller, self._secret)
        except proof.StrangerError:
            caller.sendall(FORBIDDEN_RESPONSE)
            return False
        finally:
            with contextlib.suppress(ValueError):
                self._unproven_callers.remove(caller)
        return True

    def _has_default_listener(self) -> bool:
        """Return whether the host listens on the default port instead of the port of its plan."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", DEFAULT_PORT), CONNECT_TIMEOUT):
            return self._target_port != DEFAULT_PORT
        return False

    def _connect(self, caller: socket.socket) -> None:
        try:
            host = socket.create_connection(("127.0.0.1", self._target_port), CONNECT_TIMEOUT)
        except OSError:
            caller.sendall(proof.DEFAULT_PORT_REPLY if self._has_default_listener() else proof.REFUSED_REPLY)
            return
        with host:
            host.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            caller.sendall(proof.CONNECTED_REPLY)
            for end in (caller, host):
                end.settimeout(None)
            pump_both_directions(caller, host)


def pump_both_directions(caller: socket.socket, host: socket.socket) -> None:
    """Copy in both directions until both have ended."""
    response_thread = threading.Thread(target=pump, args=(host, caller), daemon=True)
    response_thread.start()
    pump(caller, host)
    response_thread.join()


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Copy until the source ends. Then end the sink, or reset it if reading failed."""
    while True:
        try:
            chunk = source.recv(CHUNK_BYTES)
        except OSError:
            _reset(sink)
            return
        try:
            if not chunk:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(chunk)
        except OSError:  # the sink is left open, because the other direction may still copy data from it
            return


def _reset(end: socket.socket) -> None:
    """Reset a connection. If it ended normally, a truncated response without a length would look complete."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RD)


def start(secret: str, target_port: int) -> None:
    """Listen on the relay's port, and serve in the background."""
    listener = socket.create_server(("", RELAY_PORT), backlog=MAX_UNPROVEN_CALLERS)
    threading.stack_size(256 << 10)
    threading.Thread(target=Relay(secret, target_port).serve, args=(listener,), daemon=True).start()
