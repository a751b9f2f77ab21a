"""How the two ends of a relayed connection prove to each other that they know its secret, which never travels.

Caller: MAGIC, 32 random bytes. Guard: 32 random bytes, its proof. Caller: its proof. Guard: whether the host answers.
"""

import hashlib
import hmac
import secrets
import socket

MAGIC = b"microjobs guard\n"
NONCE_BYTES = 32
PROOF_BYTES = hashlib.sha256().digest_size
CONNECTED, REFUSED = b"+", b"-"


class StrangerError(ConnectionError):
    """The other end does not know the secret."""


def prove(secret: str, role: bytes, caller_nonce: bytes, guard_nonce: bytes) -> bytes:
    return hmac.digest(secret.encode(), role + caller_nonce + guard_nonce, "sha256")


def call(connection: socket.socket, secret: str) -> None:
    """The caller's part.

    Raises:
        StrangerError: a program without the secret has taken the guard's port.
        ConnectionError: the host does not listen, or the guard has ended.
        TimeoutError: the connection's timeout ran out.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    connection.sendall(MAGIC + nonce)
    guard_nonce = receive(connection, NONCE_BYTES)
    if not hmac.compare_digest(receive(connection, PROOF_BYTES), prove(secret, b"guard", nonce, guard_nonce)):
        raise StrangerError("a program without the guard's secret answers on its port")
    connection.sendall(prove(secret, b"caller", nonce, guard_nonce))
    if receive(connection, 1) != CONNECTED:
        raise ConnectionRefusedError("the container does not listen on its port")


def answer(connection: socket.socket, secret: str) -> None:
    """The guard's part, but for its last byte.

    Raises:
        StrangerError: the caller does not know the secret.
        ConnectionError: the caller has gone.
        TimeoutError: the connection's timeout ran out.
    """
    for expected in MAGIC:
        if receive(connection, 1)[0] != expected:
            raise StrangerError("the caller speaks another protocol")
    nonce, guard_nonce = receive(connection, NONCE_BYTES), secrets.token_bytes(NONCE_BYTES)
    connection.sendall(guard_nonce + prove(secret, b"guard", nonce, guard_nonce))
    if not hmac.compare_digest(receive(connection, PROOF_BYTES), prove(secret, b"caller", nonce, guard_nonce)):
        raise StrangerError("the caller does not know the secret")


def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly so many bytes."""
    received = b""
    while len(received) < size:
        if not (chunk := connection.recv(size - len(received))):
            raise ConnectionAbortedError("the connection was closed before it was proven")
        received += chunk
    return received
