"""Copies between the standard streams and the relay's port, for servers that cannot reach this container otherwise."""

import socket

from microjobs_orchestrator.local.guard.relay import CONNECT_TIMEOUT
from microjobs_orchestrator.local.guard.settings import RELAY_PORT
from microjobs_orchestrator.local.guard.streams import copy_streams


def main() -> None:
    with socket.create_connection(("127.0.0.1", RELAY_PORT), CONNECT_TIMEOUT) as relay:
        copy_streams(relay)


if __name__ == "__main__":
    main()
