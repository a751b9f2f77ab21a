"""Functions that find the containers, processes and sockets of one server on this machine.

Other tests run their servers at the same time. So these functions find containers by their home, and processes by a
text in their environment variables.
"""

import hashlib
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import docker
from docker.models.containers import Container

from microjobs_orchestrator.local.home import Home

Address = tuple[str, int]


def make_home_filter(home: Home) -> dict[str, str]:
    """Return the engine's filter for the containers, networks and volumes of a home."""
    return {"label": f"org.microjobs.home={hashlib.sha256(str(home.root.resolve()).encode()).hexdigest()[:8]}"}


@contextmanager
def open_engine() -> Iterator[docker.DockerClient]:
    with closing(docker.from_env()) as client:
        yield client


def list_containers(home: Home) -> list[Container]:
    """Return all containers of a home, running or not."""
    with open_engine() as engine:
        return engine.containers.list(all=True, ignore_removed=True, filters=dict(make_home_filter(home)))


def list_container_names(home: Home) -> list[str]:
    return [str(container.name) for container in list_containers(home)]


def read_variables_by_process(text: str) -> dict[Path, dict[str, str]]:
    """Return the variables of the processes whose environment contains a text, by the process's folder in /proc."""
    variables_by_process = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process belongs to another user, or has ended
            content = (process / "environ").read_bytes().decode(errors="replace")
            if text in content:
                variables_by_process[process] = dict(line.split("=", 1) for line in content.split("\0") if "=" in line)
    return variables_by_process


def list_listening_addresses(text: str) -> set[Address]:
    """Return the IPv4 and IPv6 addresses of all listening processes whose environment contains a text."""
    links: set[str] = set()
    for process in read_variables_by_process(text):
        with suppress(OSError):
            links |= {str(item.readlink()) for item in (process / "fd").iterdir()}
    return {_parse_address(address) for address, inode in _list_listening_sockets() if f"socket:[{inode}]" in links}


def _list_listening_sockets() -> Iterator[tuple[str, str]]:
    """Yield the address, in the format of /proc, and the inode of each listening TCP socket."""
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, address, _, state, _, _, _, _, _, inode, *_ = line.split()
            if state == "0A":
                yield address, inode


def _parse_address(text: str) -> Address:
    """Parse an address of /proc/net/tcp: words of four bytes in the machine's byte order, and the port."""
    address, port = text.split(":")
    packed = b"".join(struct.pack("=I", int(address[at : at + 8], 16)) for at in range(0, len(address), 8))
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed), int(port, 16)
