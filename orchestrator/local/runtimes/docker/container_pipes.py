"""Named pipes in containers: made and filled by the engine's API, so nothing of this machine is mounted."""

import contextlib
import functools
import io
import socket
import tarfile
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from docker.errors import APIError, NotFound
from docker.models.containers import Container

from microjobs_orchestrator.local.runtimes.base import CannotRunError

FILL = ["sh", "-c", 'exec cat > "$0"']
"""What writes in the container what it is sent; it takes the path."""

CLOSED = (1, 128 + 13)
"""The exit codes of a `cat` whose reader went away."""
KILLED = (None, 128 + 9)
"""Those of one whose container ended."""

LOOK_SECONDS = 0.2
"""Between two looks whether the reader still reads."""
ENDING_SECONDS = 0.01
"""Between the end of a program's output and what the engine knows of its end."""
START_SECONDS = 10.0
"""Between the connection to a program, which the engine takes first, and the program's start."""
ENDED_SECONDS = 10.0
"""Between a program's end by its container's, of which the engine tells first, and the container's."""


def make(container: Container, path: str) -> None:
    """Make a named pipe in a container, which may run or not."""
    info = tarfile.TarInfo(path.lstrip("/"))
    info.type, info.mode = tarfile.FIFOTYPE, 0o644
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(info)
    container.put_archive("/", buffer.getvalue())


def pour(container: Container, first: Iterable[str], path: str, chunks: Iterable[bytes]) -> bool:
    """As `pipes.Pour`, for a container.

    Args:
        container: the host.
        first: the pipes that are there already.
        path: the pipe.
        chunks: what to write.
    """
    try:
        if path not in first:
            make(container, path)
        code = Filler(container, path).send(chunks)
        is_running = _is_running(container, ENDED_SECONDS if code in KILLED else 0.0)
    except NotFound:
        return False
    except APIError as error:
        if error.status_code == HTTPStatus.CONFLICT:  # it has ended
            return False
        raise CannotRunError(f"the engine cannot fill it: {error.explanation or error}") from error
    if is_running and code not in (0, *CLOSED):
        raise CannotRunError(f"Pipe mode needs `sh` and `cat` in the image: filling it ended with exit code {code}")
    return is_running


def _is_running(container: Container, patience: float) -> bool:
    """Whether a container runs, and still does after so many seconds."""
    until = time.monotonic() + patience
    while True:
        container.reload()
        if not container.attrs["State"]["Running"]:
            return False
        if time.monotonic() >= until:
            return True
        time.sleep(LOOK_SECONDS)


class Filler:
    """A program in a container that writes into a pipe what it is sent."""

    def __init__(self, container: Container, path: str) -> None:
        assert container.client is not None  # noqa: S101  for mypy
        self._api = container.client.api
        self._id: str = self._api.exec_create(container.id, [*FILL, path], stdin=True, stdout=False, user="root")["Id"]
        self._starts_until = time.monotonic() + START_SECONDS

    def send(self, chunks: Iterable[bytes]) -> int | None:
        """Send all, or what the reader wants of it; the exit code, None if the container ended meanwhile."""
        connection: Any = self._api.exec_start(self._id, socket=True)
        stream = getattr(connection, "_sock", connection)  # docker-py gives a file for reading in place of the socket
        stream.settimeout(LOOK_SECONDS)
        try:
            if all(self._send(stream, chunk) for chunk in chunks):
                stream.shutdown(socket.SHUT_WR)
            while self._is_running():
                _wait(stream)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended, as its exit code tells
        finally:
            connection.close()
        code: int | None = self._api.exec_inspect(self._id)["ExitCode"]
        return code

    def _send(self, stream: socket.socket, chunk: bytes) -> bool:
        """Send one piece; False if the reader has closed the pipe, of which the engine does not tell a sender."""
        rest = memoryview(chunk)
        while rest:
            try:
                rest = rest[stream.send(rest) :]
            except TimeoutError:
                if not self._is_running():
                    return False
        return True

    def _is_running(self) -> bool:
        found = self._api.exec_inspect(self._id)
        is_to_start = found["ExitCode"] is None and time.monotonic() < self._starts_until
        return bool(found["Running"]) or is_to_start


def _wait(stream: socket.socket) -> None:
    """Wait until the program says something or ends, or for a while."""
    with contextlib.suppress(TimeoutError):
        if not stream.recv(1 << 16):
            time.sleep(ENDING_SECONDS)


def pourer(container: Container, first: Iterable[str]) -> functools.partial[bool]:
    """`pour` for one container."""
    return functools.partial(pour, container, frozenset(first))
