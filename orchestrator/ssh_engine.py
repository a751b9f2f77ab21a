"""Connections to a Docker engine over SSH, made as the Docker CLI makes them: by `ssh HOST docker system dial-stdio`.

The Docker SDK can do this too, with the library paramiko. But the connections of paramiko are not sockets, and
endpoints and Pipe mode need sockets that they can poll. In this module, `ssh` gets one end of a real socket as its
standard streams.
"""

import contextlib
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

PREFIX = "ssh://"
PING_REQUEST = b"GET /_ping HTTP/1.0\r\n\r\n"
BACKLOG = 64
KEEP_ALIVE = "ServerAliveInterval=15"
"""With this option, ssh ends 45 seconds after the other machine stops answering."""


class SshError(Exception):
    """No engine answers through SSH, or the address is invalid. The message states the reason."""


class SshForwarder:
    """A Unix socket whose connections lead to the engine on another machine.

    `ssh` asks for no password: it uses the user's keys and `~/.ssh/config`.
    """

    def __init__(self, address: str, timeout: int) -> None:
        """Check that the engine answers, and listen.

        Args:
            address: `ssh://[USER@]HOST[:PORT][/PATH]`, where PATH is the engine's socket on HOST.
            timeout: seconds within which `ssh` must connect, and the engine must answer the first request.

        Raises:
            SshError: `ssh` or the engine does not answer, or `ssh` is not installed.
        """
        self._command = make_command(address, timeout)
        self._check(timeout)
        self._folder = tempfile.mkdtemp(prefix="microjobs-ssh-")  # only this user can open the folder
        path = Path(self._folder, "engine.sock")
        self.address = f"unix://{path}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(BACKLOG)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections. Open connections end when their client closes them."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # this call wakes the thread that accepts connections
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _check(self, timeout: int) -> None:
        try:
            result = subprocess.run(
                self._command, input=PING_REQUEST, capture_output=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise SshError(f"`{shlex.join(self._command)}` does not answer within {timeout} s") from None
        except OSError as error:
            raise SshError(f"ssh cannot be started: {error.strerror}") from error
        if not result.stdout.startswith(b"HTTP/"):
            lines = result.stderr.decode(errors="replace").strip().splitlines() or ["no engine answers"]
            raise SshError(f"{lines[-1].strip()} (`{shlex.join(self._command)}`)")

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # an error means that the listener is closed
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    stream = connection.fileno()
                    # Ctrl-C in a terminal must not end the connections: the server uses them to stop its jobs.
                    process = subprocess.Popen(self._command, stdin=stream, stdout=stream, start_new_session=True)
                threading.Thread(target=process.wait, daemon=True).start()


def make_command(address: str, timeout: int) -> list[str]:
    """Return the command that connects its standard streams to the engine.

    Raises:
        SshError: the address does not have the form `ssh://[USER@]HOST[:PORT][/PATH]`, or it has a password.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SshError(f"{address} is not an address: {error}") from error
    if not host or parts.password or parts.query or parts.fragment:
        raise SshError(f"{address} must have the form ssh://USER@HOST:PORT, without a password")
    options = ["-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={timeout}", "-o", KEEP_ALIVE]
    options += ["-l", parts.username] if parts.username else []
    options += ["-p", str(port)] if port else []
    engine = ["--host", f"unix://{shlex.quote(parts.path)}"] if parts.path.strip("/") else []
    return ["ssh", *options, "--", host, "docker", *engine, "system", "dial-stdio"]
