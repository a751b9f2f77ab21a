"""Named pipes in containers, made and filled through the engine's API. No file of this machine is mounted."""

import contextlib
import io
import select
import socket
import ssl
import tarfile
import time
from collections.abc import Collection, Iterable
from http import HTTPStatus
from typing import Any

from docker.errors import APIError, NotFound
from docker.models.containers import Container
from requests.exceptions import RequestException

from microjobs_orchestrator.local.runtimes.base import CannotRunError

FILL_COMMAND = ["sh", "-c", 'exec cat > "$0"']
"""The command that copies its input into a pipe in the container. Its last argument is the pipe's path."""

READER_CLOSED_CODES = (1, 128 + 13)
"""Exit codes of a `cat` whose reader closed the pipe."""
KILLED_CODES = (None, 128 + 9)
"""Exit codes of a `cat` whose container ended."""

RECEIVE_BYTES = 1 << 16
POLL_INTERVAL = 0.01
EXIT_CODE_TIMEOUT = 10.0
"""Seconds after the end of a command's output until the engine knows its exit code."""
CONTAINER_END_TIMEOUT = 10.0
"""Seconds until the engine reports the end of a container, after a command has ended because the container ended."""

NOT_READY = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def make(container: Container, path: str) -> None:
    """Make a named pipe in a container, running or not."""
    info = tarfile.TarInfo(path.lstrip("/"))
    info.type, info.mode = tarfile.FIFOTYPE, 0o644
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(info)
    container.put_archive("/", buffer.getvalue())


def fill_pipe(container: Container, initial_paths: Collection[str], path: str, chunks: Iterable[bytes]) -> bool:
    """Fill a pipe of a container, as `pipes.FillPipe` describes.

    Args:
        initial_paths: the pipes that the container had when it started.
    """
    try:
        if path not in initial_paths:
            make(container, path)
        code = send_chunks(container, path, chunks)
        is_running = _is_running(container, CONTAINER_END_TIMEOUT if code in KILLED_CODES else 0.0)
    except NotFound:
        return False
    except APIError as error:
        if error.status_code == HTTPStatus.CONFLICT:  # the container has ended
            return False
        raise CannotRunError(f"the engine cannot fill the pipe: {error.explanation or error}") from error
    if is_running and code not in (0, *READER_CLOSED_CODES):
        raise CannotRunError(f"Pipe mode needs `sh` and `cat` in the image: the command ended with exit code {code}")
    return is_running


def send_chunks(container: Container, path: str, chunks: Iterable[bytes]) -> int | None:
    """Send chunks to a pipe until its reader closes it. Return the command's exit code; None if the container ended."""
    assert container.client is not None  # noqa: S101  for mypy
    api = container.client.api
    command: str = api.exec_create(container.id, [*FILL_COMMAND, path], stdin=True, stdout=False, user="root")["Id"]
    connection: Any = api.exec_start(command, socket=True)
    stream = getattr(connection, "_sock", connection)  # docker-py returns a file for reading, not the socket
    try:
        stream.setblocking(False)
        if all(_send(stream, chunk) for chunk in chunks):
            end_input(stream)
        stream.setblocking(True)
        while stream.recv(RECEIVE_BYTES):
            pass
    except (BrokenPipeError, ConnectionResetError):
        pass  # the command has ended, as its exit code shows
    finally:
        close_exec(connection)
    return find_exit_code(api, command)


def end_input(stream: socket.socket) -> None:
    """End the input of the command that a non-blocking stream is connected with, and whose output is not needed.

    Over TLS, the end is an alert, as Docker's own client sends it: after an end of the TCP stream without it, a peer
    may drop the last data, because they could be incomplete.
    """
    if isinstance(stream, ssl.SSLSocket):
        with contextlib.suppress(ssl.SSLError):  # the peer has not sent its own alert yet
            stream.unwrap()
    socket.socket.shutdown(stream, socket.SHUT_WR)


def close_exec(connection: Any) -> None:
    """Close a connection of docker-py's `exec_start`: a file for reading, or a socket over TLS.

    The file's socket, or the file that reads the socket, would stay open until Python collects garbage.
    """
    for part in (getattr(connection, "_response", None), getattr(connection, "_sock", None), connection):
        if part is not None:
            part.close()


def _send(stream: socket.socket, chunk: bytes) -> bool:
    """Send one chunk; return False if the command has ended, which the engine reports by the end of its output."""
    rest, events = memoryview(chunk), select.poll()
    events.register(stream, select.POLLIN | select.POLLOUT)
    while rest:
        events.poll()
        with contextlib.suppress(*NOT_READY):
            if not stream.recv(RECEIVE_BYTES):
                return False
        with contextlib.suppress(*NOT_READY):
            rest = rest[stream.send(rest) :]
    return True


def find_exit_code(api: Any, command: str) -> int | None:
    """Return the exit code of a command whose output has ended; None if the engine does not know it in time."""
    deadline = time.monotonic() + EXIT_CODE_TIMEOUT
    while (found := api.exec_inspect(command))["Running"] and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL)
    code: int | None = found["ExitCode"]
    return code


def _is_running(container: Container, timeout: float) -> bool:
    """Wait until a container ends, at most `timeout` seconds. Return whether it is still running."""
    if timeout:
        with contextlib.suppress(RequestException):
            container.wait(timeout=timeout)
    container.reload()
    return bool(container.attrs["State"]["Running"])
