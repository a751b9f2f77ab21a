"""Connects one client in the host with the server, through the standard input and output of this program.

It prints one byte when a client has connected, and then copies the data of both directions. It exits if its
input ends before a client connects.
"""

import select
import socket

from microjobs_orchestrator.local.guard.forwarding import CARRIER_SOCKET
from microjobs_orchestrator.local.guard.streams import copy_streams, write

CONNECTED_REPLY = b"+"


def main() -> None:
    with socket.socket(socket.AF_UNIX) as guard:
        guard.connect(CARRIER_SOCKET)
        readable, _, _ = select.select([guard.fileno(), 0], [], [])
        if guard.fileno() not in readable:
            return
        _, descriptors, _, _ = socket.recv_fds(guard, bufsize=1, maxfds=1)
        guard.sendall(CONNECTED_REPLY)
    with socket.socket(fileno=descriptors[0]) as client:
        write(CONNECTED_REPLY)
        copy_streams(client)


if __name__ == "__main__":
    main()
