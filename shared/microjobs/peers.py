"""Authenticated connections between the hosts of a job.

The hosts share a secret (`contract.read_job_secret`). The first host listens, and all other hosts call it. Caller and
listener prove to each other that they know the secret, before either side parses other data:

    caller    hello: nonce, name and a MAC of them
    listener  challenge: the listener's nonce and a MAC of both nonces
    caller    proof: another MAC of both nonces
    listener  a frame without content: the listener admits the caller

MACs are HMAC-SHA256. Each step has its own label, so that an attacker cannot reflect a message. Both sides choose a
nonce, so that an attacker cannot replay a message. Each later frame has a number and a MAC. The keys of these MACs are
derived from the secret and both nonces, so a relay cannot add, change, repeat or reorder frames. Frames are not
encrypted.
"""

import contextlib
import hmac
import os
import selectors
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

MAGIC = b"MJpeer2\n"
NONCE_BYTES = 32
MAC_BYTES = 32
CLAIM = struct.Struct("8s32s256s")
"""The claim is the first part of a hello: magic, nonce, and the name of the caller's host, padded with NUL."""
HELLO_BYTES = CLAIM.size + MAC_BYTES
CHALLENGE_BYTES = NONCE_BYTES + MAC_BYTES

HANDSHAKE_SECONDS = 5.0
"""The time limit of a handshake, on both sides."""
WELCOME_SECONDS = 20.0
"""Time limit of the last step: the listener has proved itself, and the caller waits until it is admitted.

The listener admits each host only once, so a caller that stops waiting too early cannot retry.
"""
MAX_PENDING_CALLERS = 128
"""Maximum number of callers whose handshakes are not complete. If there are more, `PeerListener` drops some of them."""
MAX_ACCEPTED_CALLERS = 32
"""Maximum number of callers that the listener accepts before it continues the pending handshakes."""

FRAME_HEADER = struct.Struct(">I")
"""Header of a frame: the size of its content in bytes. The MAC and the content follow."""
WELCOME_BYTES = FRAME_HEADER.size + MAC_BYTES
"""Size of the frame without content with which the listener admits the caller."""
MAX_FRAME_BYTES = 1 << 20
READ_BYTES = 1 << 18


class UntrustedError(ConnectionError):
    """The other side does not know the job's secret, or its data were changed on the way."""


def encode_claim(host: str, nonce: bytes) -> bytes:
    return CLAIM.pack(MAGIC, nonce, host.encode())


def decode_claim(claim: bytes) -> str:
    """Return the name of the caller's host.

    Raises:
        ConnectionError: the claim belongs to another protocol.
    """
    magic, _, host = CLAIM.unpack(claim)
    if magic != MAGIC:
        raise ConnectionError("the caller uses another protocol")
    name: str = host.rstrip(b"\0").decode(errors="replace")
    return name


def _compute_mac(secret: bytes, label: bytes, *parts: bytes) -> bytes:
    return hmac.digest(secret, b"microjobs " + label + b"\0" + b"".join(parts), "sha256")


def _check_mac(expected_mac: bytes, received_mac: bytes) -> None:
    if not hmac.compare_digest(expected_mac, received_mac):
        raise UntrustedError("the other side does not know the job's secret")


class Connection:
    """An authenticated connection that carries messages, one per frame.

    Args:
        transcript: the claim, which contains the caller's nonce, and the listener's nonce. The keys of this connection
            are derived from the transcript and the secret.
        is_caller: whether this side is the caller, not the listener.
    """

    def __init__(self, sock: socket.socket, secret: bytes, transcript: bytes, *, is_caller: bool) -> None:
        self._socket = sock
        # Without this option, a second message would wait for the acknowledgement of the first message, up to 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keys = [_compute_mac(secret, label, transcript) for label in (b"caller's frames", b"listener's frames")]
        self._send_key, self._receive_key = keys if is_caller else reversed(keys)
        self._send_number = self._receive_number = 0
        """Numbers of the next frame to send and of the next frame to receive."""
        self._unread_bytes = bytearray()

    def wrap(self, content: bytes) -> bytes:
        """Return the next frame with this content."""
        mac = _compute_mac(self._send_key, b"frame", self._send_number.to_bytes(8), content)
        self._send_number += 1
        return FRAME_HEADER.pack(len(content)) + mac + content

    def unwrap(self, received: bytes) -> list[bytes]:
        """Add received bytes, and return the contents of all frames that are now complete.

        Raises:
            UntrustedError: a frame is too long, or its MAC is wrong.
        """
        self._unread_bytes += received
        contents = []
        while (content := self._take_frame()) is not None:
            contents.append(content)
        return contents

    def _take_frame(self) -> bytes | None:
        if len(self._unread_bytes) < FRAME_HEADER.size:
            return None
        start, (size,) = FRAME_HEADER.size + MAC_BYTES, FRAME_HEADER.unpack_from(self._unread_bytes)
        if size > MAX_FRAME_BYTES:
            raise UntrustedError(f"a frame of {size} bytes is longer than {MAX_FRAME_BYTES}")
        if len(self._unread_bytes) < start + size:
            return None
        mac, content = (
            bytes(self._unread_bytes[FRAME_HEADER.size : start]),
            bytes(self._unread_bytes[start : start + size]),
        )
        _check_mac(_compute_mac(self._receive_key, b"frame", self._receive_number.to_bytes(8), content), mac)
        self._receive_number += 1
        del self._unread_bytes[: start + size]
        return content

    def fileno(self) -> int:
        return self._socket.fileno()

    def set_blocking(self, blocking: bool) -> None:
        self._socket.settimeout(None if blocking else 0.0)

    def send(self, message: bytes) -> None:
        """Send a message of at most MAX_FRAME_BYTES."""
        self._socket.sendall(self.wrap(message))

    def receive(self) -> list[bytes]:
        """Read once, and return the messages that are complete.

        Raises:
            EOFError: the other side closed the connection.
            BlockingIOError: the connection does not block, and no data have arrived.
            UntrustedError: a frame is too long, or the other side or a relay changed it.
        """
        if not (received := self._socket.recv(READ_BYTES)):
            raise EOFError("the other side closed the connection")
        return self.unwrap(received)

    def finish_sending(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()


def call(address: tuple[str, int], secret: bytes, host: str, seconds: float = HANDSHAKE_SECONDS) -> Connection:
    """Connect to the first host, and return the connection when the first host has admitted this host.

    Args:
        host: the name of this host.

    Raises:
        UntrustedError: the listener does not know the secret, or does not admit this host.
        OSError: the listener does not answer in time.
    """
    deadline = time.monotonic() + seconds
    sock = socket.create_connection(address, timeout=seconds)
    try:
        return _shake_hands(sock, secret, host, deadline)
    except BaseException as error:
        sock.close()
        if isinstance(error, EOFError):
            raise UntrustedError("the other side closed the connection during the handshake") from error
        raise


def _shake_hands(sock: socket.socket, secret: bytes, host: str, deadline: float) -> Connection:
    hello_claim = encode_claim(host, os.urandom(NONCE_BYTES))
    sock.sendall(hello_claim + _compute_mac(secret, b"hello", hello_claim))
    challenge = _read(sock, CHALLENGE_BYTES, deadline)
    transcript = hello_claim + challenge[:NONCE_BYTES]
    _check_mac(_compute_mac(secret, b"challenge", transcript), challenge[NONCE_BYTES:])
    sock.sendall(_compute_mac(secret, b"proof", transcript))
    connection = Connection(sock, secret, transcript, is_caller=True)
    if connection.unwrap(_read(sock, WELCOME_BYTES, time.monotonic() + WELCOME_SECONDS)) != [b""]:
        raise UntrustedError("the other side sent an invalid response at the end of the handshake")
    sock.settimeout(None)
    return connection


def _read(sock: socket.socket, size: int, deadline: float) -> bytes:
    received = b""
    while len(received) < size:
        if (remaining := deadline - time.monotonic()) <= 0:
            raise TimeoutError("the handshake took too long")
        sock.settimeout(remaining)
        if not (part := sock.recv(size - len(received))):
            raise EOFError
        received += part
    return received


@dataclass
class _Caller:
    """A caller whose handshake is not complete."""

    sock: socket.socket
    deadline: float = field(default_factory=lambda: time.monotonic() + HANDSHAKE_SECONDS)
    received: bytes = b""
    transcript: bytes = b""
    """The claim, which contains the caller's nonce, and the listener's nonce. Empty until a valid hello has arrived."""

    def advance(self, secret: bytes) -> bool:
        """Continue the handshake with the bytes that have arrived, and return whether it is complete.

        Raises:
            UntrustedError: the caller does not know the secret.
            OSError, EOFError: the connection is lost.
        """
        while self._receive(MAC_BYTES if self.transcript else HELLO_BYTES):
            message, self.received = self.received, b""
            if self.transcript:
                _check_mac(_compute_mac(secret, b"proof", self.transcript), message)
                return True
            claim = message[: CLAIM.size]
            decode_claim(claim)
            _check_mac(_compute_mac(secret, b"hello", claim), message[CLAIM.size :])
            nonce = os.urandom(NONCE_BYTES)
            self.transcript = claim + nonce
            self.sock.sendall(nonce + _compute_mac(secret, b"challenge", self.transcript))
        return False

    def _receive(self, size: int) -> bool:
        """Read bytes of a message of `size` bytes, but no bytes after it. Return whether the message is complete."""
        with contextlib.suppress(BlockingIOError):
            part = self.sock.recv(size - len(self.received))
            if not part:
                raise EOFError
            self.received += part
        return len(self.received) == size


class PeerListener:
    """The first host's listener, which admits only the other hosts of the job.

    Strangers cannot keep hosts of the job out, even if many strangers connect, send nothing or send garbage: if there
    are too many callers, the listener first drops the oldest callers without a valid hello. Hosts of the job are not
    among them, because a host sends its hello as soon as it is connected, and answers immediately.

    Args:
        expected_hosts: the names of the hosts to admit. The listener admits each host once.
    """

    def __init__(self, listener: socket.socket, secret: bytes, expected_hosts: Iterable[str]) -> None:
        self.refused_count = 0
        """The number of callers that used this protocol with a wrong secret."""
        self._listener, self._secret, self._expected_hosts = listener, secret, set(expected_hosts)
        self._callers: list[_Caller] = []
        self._selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)

    def admit(self, seconds: float) -> list[tuple[str, Connection]]:
        """Wait up to `seconds` for data from callers, and return the newly admitted hosts with their connections."""
        ready = [key.data for key, _ in self._selector.select(seconds)]
        admitted = [self._continue_handshake(caller) for caller in ready if caller is not None]
        if None in ready:
            admitted += [self._continue_handshake(caller) for caller in self._accept()]
        self._drop_late_callers()
        return [pair for pair in admitted if pair is not None]

    def close(self) -> None:
        for caller in list(self._callers):
            self._drop(caller)
        self._selector.close()

    def _accept(self) -> list[_Caller]:
        callers: list[_Caller] = []
        with contextlib.suppress(OSError):  # no more callers are waiting, or a caller has just disconnected
            while len(callers) < MAX_ACCEPTED_CALLERS:
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                callers.append(_Caller(sock))
                self._selector.register(sock, selectors.EVENT_READ, callers[-1])
        self._callers += callers
        return callers

    def _continue_handshake(self, caller: _Caller) -> tuple[str, Connection] | None:
        try:
            return self._admit(caller) if caller.advance(self._secret) else None
        except (OSError, EOFError) as error:
            self.refused_count += isinstance(error, UntrustedError)
            self._drop(caller)
            return None

    def _admit(self, caller: _Caller) -> tuple[str, Connection] | None:
        host = decode_claim(caller.transcript[: CLAIM.size])
        if host not in self._expected_hosts:
            self._drop(caller)
            return None
        connection = Connection(caller.sock, self._secret, caller.transcript, is_caller=False)
        caller.sock.sendall(connection.wrap(b""))
        self._expected_hosts.remove(host)
        self._drop(caller, close=False)
        return host, connection

    def _drop_late_callers(self) -> None:
        now = time.monotonic()
        for caller in [caller for caller in self._callers if caller.deadline < now]:
            self._drop(caller)
        if (excess := len(self._callers) - MAX_PENDING_CALLERS) > 0:
            for caller in sorted(self._callers, key=lambda item: (bool(item.transcript), item.deadline))[:excess]:
                self._drop(caller)

    def _drop(self, caller: _Caller, *, close: bool = True) -> None:
        self._callers.remove(caller)
        self._selector.unregister(caller.sock)
        if close:
            caller.sock.close()
