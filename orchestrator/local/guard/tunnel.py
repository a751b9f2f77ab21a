"""Copies between the standard streams and the relay's port, for servers that cannot reach this container otherwise."""

import os
import socket
import threading

from microjobs_orchestrator.local.guard.relay import CHUNK_BYTES, CONNECT_TIMEOUT
from microjobs_orchestrator.local.guard.settings import RELAY_PORT


def main() -> None:
    with socket.create_connection(("127.0.0.1", RELAY_PORT), CONNECT_TIMEOUT) as relay:
        relay.settimeout(None)
        threading.Thread(target=_send, args=(relay,), daemon=True).start()
        while chunk := relay.recv(CHUNK_BYTES):
            _write(chunk)


def _send(relay: socket.socket) -> None:
    while chunk := os.read(0, CHUNK_BYTES):
        relay.sendall(chunk)
    relay.shutdown(socket.SHUT_WR)


def _write(chunk: bytes) -> None:
    while chunk:
        chunk = chunk[os.write(1, chunk) :]


if __name__ == "__main__":
    main()
