"""Mutual proof that both ends of a relayed connection know the secret, which is never sent.

1. The caller sends MAGIC and 32 random bytes.
2. The guard sends 32 random bytes and its proof.
3. The caller sends its proof.
4. The guard reports that it has connected to the host, that the host does not listen on its port, or that the host
   listens on port 8080 instead.
"""

import hashlib
import hmac
import secrets
import socket

MAGIC = b"microjobs guard\n"
NONCE_BYTES = 32
PROOF_BYTES = hashlib.sha256().digest_size
CONNECTED_REPLY, REFUSED_REPLY, DEFAULT_PORT_REPLY = b"+", b"-", b"8"


class StrangerError(ConnectionError):
    """The other end of the connection does not know the secret."""


class NotListeningError(ConnectionRefusedError):
    """The guard answers, but its host does not listen on its port."""


class OnDefaultPortError(NotListeningError):
    """The host listens on port 8080, and not on the port of its plan."""


def make_proof(secret: str, role: bytes, caller_nonce: bytes, guard_nonce: bytes) -> bytes:
    return hmac.digest(secret.encode(), role + caller_nonce + guard_nonce, "sha256")


def prove_to_guard(connection: socket.socket, secret: str) -> None:
    """Prove to a guard, as the caller, that this side knows the secret. The guard proves it as well.

    Raises:
        StrangerError: a program without the secret listens on the guard's port.
        NotListeningError: the host does not listen.
        OnDefaultPortError: the host listens on port 8080 instead.
        ConnectionError: the guard has ended.
        TimeoutError: the connection's timeout has passed.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    connection.sendall(MAGIC + nonce)
    guard_nonce = receive(connection, NONCE_BYTES)
    if not hmac.compare_digest(receive(connection, PROOF_BYTES), make_proof(secret, b"guard", nonce, guard_nonce)):
        raise StrangerError("a program without the guard's secret answers on its port")
    connection.sendall(make_proof(secret, b"caller", nonce, guard_nonce))
    reply = receive(connection, 1)
    if reply == DEFAULT_PORT_REPLY:
        raise OnDefaultPortError("the container listens on port 8080, and not on the port that it should use")
    if reply != CONNECTED_REPLY:
        raise NotListeningError("the container does not listen on its port")


def prove_to_caller(connection: socket.socket, secret: str) -> None:
    """Check that a caller knows the secret, and prove to it that the guard knows it as well.

    This function does not send the last byte of the protocol, which states whether the guard has connected to the host.

    Raises:
        StrangerError: the caller does not know the secret.
        ConnectionError: the caller has closed the connection.
        TimeoutError: the connection's timeout has passed.
    """
    for expected in MAGIC:
        if receive(connection, 1)[0] != expected:
            raise StrangerError("the caller uses another protocol")
    nonce, guard_nonce = receive(connection, NONCE_BYTES), secrets.token_bytes(NONCE_BYTES)
    connection.sendall(guard_nonce + make_proof(secret, b"guard", nonce, guard_nonce))
    if not hmac.compare_digest(receive(connection, PROOF_BYTES), make_proof(secret, b"caller", nonce, guard_nonce)):
        raise StrangerError("the caller does not know the secret")


def receive(connection: socket.socket, size: int) -> bytes:
    """Receive exactly `size` bytes."""
    received = b""
    while len(received) < size:
        if not (chunk := connection.recv(size - len(received))):
            raise ConnectionAbortedError("the other end closed the connection too early")
        received += chunk
    return received
