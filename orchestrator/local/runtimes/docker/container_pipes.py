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
from microjobs_orchestrator.local.runtimes.docker.log_frames import FrameSplitter

FILL_COMMAND = ["sh", "-c", 'exec cat > "$0"']
"""The command that copies its input into a pipe in the container. Callers append the path of the pipe."""

READER_CLOSED_CODES = (1, 128 + 13)
"""Exit codes of a `cat` whose reader closed the pipe."""
CANNOT_START_CODE = 126
CONTAINER_ENDED_CODES = (None, CANNOT_START_CODE, 128 + 9)
"""Exit codes of a command whose container ended. If it ended while the engine started the command, the code is 126."""

RECEIVE_BYTES = 1 << 16
MAX_MESSAGE_BYTES = 1 << 12
POLL_INTERVAL = 0.01
"""Seconds between two requests for the exit code of a command."""
EXIT_CODE_TIMEOUT = 10.0
"""Maximum number of seconds from the end of a command's output until the engine knows the exit code of the command."""
CONTAINER_END_TIMEOUT = 10.0
"""Maximum number of seconds from the end of a command until the engine reports that the container has ended, too."""

WOULD_BLOCK_ERRORS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def make_pipe(container: Container, path: str) -> None:
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
            make_pipe(container, path)
        code, message = send_chunks(container, path, chunks)
        is_running = _is_running(container, CONTAINER_END_TIMEOUT if code in CONTAINER_ENDED_CODES else 0.0)
    except NotFound:
        return False
    except APIError as error:
        if error.status_code == HTTPStatus.CONFLICT:  # the container has ended
            return False
        raise CannotRunError(f"the engine cannot fill the pipe: {error.explanation or error}") from error
    if is_running and code not in (0, *READER_CLOSED_CODES):
        reason = f"the command ended with exit code {code}{': ' if message else ''}{message}"
        raise CannotRunError(f"Pipe mode needs `sh` and `cat` in the image: {reason}")
    return is_running


def send_chunks(container: Container, path: str, chunks: Iterable[bytes]) -> tuple[int | None, str]:
    """Send chunks to a pipe until its reader closes it.

    Return the exit code of the command, and the message of the command or of the engine. The code is None if the engine
    does not report it, because the container ended.
    """
    assert container.client is not None  # noqa: S101  for mypy
    api = container.client.api
    exec_id: str = api.exec_create(container.id, [*FILL_COMMAND, path], stdin=True, stdout=False, user="root")["Id"]
    connection: Any = api.exec_start(exec_id, socket=True)
    stream = getattr(connection, "_sock", connection)  # docker-py returns a file for reading, not the socket
    output = _Output()
    try:
        stream.setblocking(False)
        if all(_send(stream, chunk, output) for chunk in chunks):
            end_input(stream)
        stream.setblocking(True)
        while output.receive(stream):
            pass
    except (BrokenPipeError, ConnectionResetError):
        pass  # the command has ended, and its exit code states the reason
    finally:
        close_exec(connection)
    return find_exit_code(api, exec_id), output.message


class _Output:
    """The output of a command. Only its beginning is kept, as a message."""

    def __init__(self) -> None:
        self._splitter = FrameSplitter()
        self._content = b""

    def receive(self, stream: Any) -> bool:
        """Receive some output; return False if it has ended."""
        chunk: bytes = stream.recv(RECEIVE_BYTES)
        if len(self._content) < MAX_MESSAGE_BYTES:
            self._content += b"".join(data for _, data in self._splitter.split(chunk))
        return bool(chunk)

    @property
    def message(self) -> str:
        return self._content[:MAX_MESSAGE_BYTES].decode(errors="replace").strip()


def end_input(stream: socket.socket) -> None:
    """End the input of a command over its non-blocking stream. The command's output is not needed.

    Over TLS, the end is an alert, as Docker's own client sends it. If the TCP stream ended without the alert, the peer
    could drop the last data as incomplete.
    """
    if isinstance(stream, ssl.SSLSocket):
        # OpenSSL raises an error because the peer has not sent its own alert yet
        with contextlib.suppress(ssl.SSLError):
            stream.unwrap()
    socket.socket.shutdown(stream, socket.SHUT_WR)


def close_exec(connection: Any) -> None:
    """Close a connection of docker-py's `exec_start`: a file for reading, or a socket over TLS.

    Also close the socket of the file, or the response that reads from the TLS socket. They would otherwise stay open
    until Python collects garbage.
    """
    for part in (getattr(connection, "_response", None), getattr(connection, "_sock", None), connection):
        if part is not None:
            part.close()


def _send(stream: socket.socket, chunk: bytes, output: _Output) -> bool:
    """Send one chunk; return False if the command has ended, which the engine reports by the end of its output."""
    unsent, poller = memoryview(chunk), select.poll()
    poller.register(stream, select.POLLIN | select.POLLOUT)
    while unsent:
        poller.poll()
        with contextlib.suppress(*WOULD_BLOCK_ERRORS):
            if not output.receive(stream):
                return False
        with contextlib.suppress(*WOULD_BLOCK_ERRORS):
            unsent = unsent[stream.send(unsent) :]
    return True


def find_exit_code(api: Any, exec_id: str) -> int | None:
    """Return the exit code of a command whose output has ended; None if the engine does not know it in time."""
    deadline = time.monotonic() + EXIT_CODE_TIMEOUT
    while (state := api.exec_inspect(exec_id))["Running"] and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL)
    code: int | None = state["ExitCode"]
    return code


def _is_running(container: Container, timeout: float) -> bool:
    """Wait until a container ends, at most `timeout` seconds. Return whether it is still running."""
    if timeout:
        with contextlib.suppress(RequestException):
            container.wait(timeout=timeout)
    container.reload()
    return bool(container.attrs["State"]["Running"])
