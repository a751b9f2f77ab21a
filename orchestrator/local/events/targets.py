"""Delivery of one event to a file, a command, a webhook or a queue."""

import http.client
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from microjobs_orchestrator.local.event_settings import EventTarget
from microjobs_orchestrator.local.queues import Queues

INHERITED_VARIABLES = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
"""The variables that a command inherits. It inherits no others, because they may contain credentials."""

POLL_INTERVAL = 0.02
"""Seconds between two checks for the end of a command."""
MAX_ERROR_BYTES = 500
"""Maximum number of bytes of a command's error output that the log shows: the last bytes."""

Deliver = Callable[[str], None]
"""Delivers one event, which is JSON text. It raises DeliveryError or OSError."""


class DeliveryError(Exception):
    """An event was not delivered. The message states the reason."""


def make_deliver_function(target: EventTarget, queues: Queues, cancelled: threading.Event) -> Deliver:
    """Return the function that delivers events to a target.

    Args:
        queues: the queues of the server.
        cancelled: a flag; when it is set, a running command is ended.
    """
    if target.file:
        return lambda event: append_line(target.file, event)
    if target.command:
        return lambda event: run_command(target, event, cancelled)
    if target.queue:
        return lambda event: send(target.queue, event, queues)
    return lambda event: post(target, event)


def send(queue: str, event: str, queues: Queues) -> None:
    """Send an event to a queue, which is created if it does not exist."""
    queues.create(queue)
    queues.send(queue, event)


def append_line(path: str, event: str) -> None:
    """Append a line to a file, completely or not at all."""
    content = f"{event}\n".encode()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        # without a newline at its end, the last line is incomplete: a server was killed while it wrote
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            content = b"\n" + content
        try:
            if os.write(descriptor, content) != len(content):
                raise DeliveryError("the line does not fit on the device")
        except (OSError, DeliveryError):
            with suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def run_command(target: EventTarget, event: str, cancelled: threading.Event) -> None:
    """Run a command in a session of its own, and end the session's processes after the timeout."""
    with tempfile.TemporaryFile() as content, tempfile.TemporaryFile() as errors:
        content.write(event.encode())
        content.seek(0)
        process = subprocess.Popen(
            list(target.command),
            stdin=content,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            env={name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ},
        )
        _wait_for_end(process, target.timeout, cancelled)
        if process.returncode:
            errors.seek(-min(MAX_ERROR_BYTES, errors.seek(0, os.SEEK_END)), os.SEEK_END)
            output = errors.read().decode(errors="replace").strip()
            raise DeliveryError(f"exit code {process.returncode}: {output or 'no error output'}")


def _wait_for_end(process: subprocess.Popen[bytes], timeout: float, cancelled: threading.Event) -> None:
    deadline = time.monotonic() + timeout
    while process.poll() is None:
        if time.monotonic() > deadline or cancelled.is_set():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            reason = "the server stops" if cancelled.is_set() else f"it ran longer than its timeout of {timeout:g} s"
            raise DeliveryError(f"the command was ended: {reason}")
        time.sleep(POLL_INTERVAL)


def post(target: EventTarget, event: str) -> None:
    """Post an event to a webhook. Redirects, and all other statuses except 2xx, are errors."""
    url = urlsplit(target.webhook)
    with closing(_connect(url, target)) as connection:
        deadline = time.monotonic() + target.timeout
        # a timer limits the whole response: a slow response may arrive byte by byte
        timer = threading.Timer(target.timeout, _abort, (connection.sock,))
        timer.start()
        try:
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("POST", path, event.encode(), {"Content-Type": "application/json"})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException, ValueError) as error:
            _check_time(deadline, target)  # `_abort` can cause any of these errors
            if isinstance(error, http.client.HTTPException | ValueError):
                raise DeliveryError(f"no response in HTTP: {type(error).__name__}: {error}") from error
            raise
        finally:
            timer.cancel()
    _check_time(deadline, target)
    if not 200 <= status < 300:
        hint = "; redirects are not followed" if 300 <= status < 400 else ""
        raise DeliveryError(f"status {status}{hint}")


def _check_time(deadline: float, target: EventTarget) -> None:
    if time.monotonic() > deadline:
        raise DeliveryError(f"no complete response within {target.timeout:g} s")


def _connect(url: SplitResult, target: EventTarget) -> http.client.HTTPConnection:
    """Connect without a proxy. Raise DeliveryError for an address of another machine, unless the target allows it."""
    connection_type = http.client.HTTPConnection if url.scheme == "http" else http.client.HTTPSConnection
    connection = connection_type(url.hostname or "", url.port, timeout=target.timeout)
    connection.connect()
    address = connection.sock.getpeername()[0]
    if not (target.allow_remote or ip_address(address).is_loopback):
        connection.close()
        raise DeliveryError(f"{url.hostname} is {address}, which is not on this machine")
    return connection


def _abort(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
