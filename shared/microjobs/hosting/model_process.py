"""A process that serves one model of a multi-model endpoint, on a Unix socket.

Users' programs need processes of their own: modules of two models may have the same names, each model may have its own
requirements, and only the end of a process frees all memory of a program.
"""

import contextlib
import http.client
import os
import signal
import subprocess
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

from microjobs.contract import BASE_DIR_VARIABLE, BIND_TO_PORT_VARIABLE, MULTI_MODEL_VARIABLE, Layout, read_failure
from microjobs.interpreter import make_python_command
from microjobs.network import SOCKET_FOLDER_VARIABLE, Network, connect_unix

from . import model_process_main
from .memory import INSUFFICIENT_STORAGE
from .responses import HttpError, HttpResponse, ResponseStream, make_stream_response
from .service import Invocation

LOAD_TIMEOUT = 360.0
"""Seconds within which a model must be loaded, as on AWS.
https://docs.aws.amazon.com/sagemaker/latest/dg/invoke-multi-model-endpoint.html"""
POLL_SECONDS = 0.02
MAX_SOCKET_PATH_BYTES = 107
STOP_TIMEOUT_SECONDS = 30.0
"""Seconds between SIGTERM and SIGKILL."""

HOP_HEADERS = frozenset({"connection", "content-length", "transfer-encoding", "expect", "host", "date", "server"})
"""Headers that belong to one connection, and are not passed to the next one."""


class ModelProcess:
    """Runs the command `serve` of this image for the model folder below `root`, and passes invocations to it.

    Args:
        root: a folder with the model in its subfolder `model`; the process also writes its failure file below it.

    Raises:
        HttpError: the process ended, or did not load the model in time.
    """

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        self._root = root
        self._socket = _require_short_path(Network.make_socket_path(str(root)))
        variables = {
            BASE_DIR_VARIABLE: str(root),
            SOCKET_FOLDER_VARIABLE: str(root),
            "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
        }
        own_variables = {
            name: value for name, value in environ.items() if name not in (MULTI_MODEL_VARIABLE, BIND_TO_PORT_VARIABLE)
        }
        command = make_python_command("-m", model_process_main.__name__, str(os.getpid()))
        self._process = subprocess.Popen(command, env=own_variables | variables, stdin=subprocess.DEVNULL)
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    def invoke(self, invocation: Invocation) -> HttpResponse:
        """Pass one invocation to the process.

        Raises:
            HttpError: 503, the process has ended, or the connection to it failed.
        """
        headers = dict(invocation.headers.items()) if invocation.headers else {}
        with self._convert_errors(), contextlib.ExitStack() as cleanup:
            response = self._send_request(cleanup, "POST", invocation.path, invocation.body, headers)
            head = HttpResponse(response.status, _select_headers(response), b"")
            if response.chunked:
                return make_stream_response(ResponseStream(self._read_parts(response, cleanup.pop_all()), lambda: head))
            return head._replace(body=response.read())

    def _read_parts(
        self, response: http.client.HTTPResponse, resources: contextlib.ExitStack
    ) -> Generator[bytes, None, None]:
        with self._convert_errors(), resources:
            while part := response.read1():
                yield part

    @contextlib.contextmanager
    def _convert_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            reason = "has ended" if self._process.poll() is not None else f"failed ({type(error).__name__})"
            message = f"the process of the model {reason}: see the log, and unload the model if this happens again"
            raise HttpError(503, message) from error

    def close(self) -> None:
        """End the process, which first answers its invocations."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + LOAD_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise self._make_load_error()
            if self._is_ready():
                return
            time.sleep(POLL_SECONDS)
        raise HttpError(500, f"the model was not loaded in {LOAD_TIMEOUT:g} s: see the log")

    def _make_load_error(self) -> HttpError:
        """Return the error for a process that ended before it loaded the model."""
        code = self._process.returncode
        reason = read_failure(Layout(self._root)) or f"its process ended with exit code {code}: see the log"
        is_killed = code in (-signal.SIGKILL, 128 + signal.SIGKILL)
        return HttpError(INSUFFICIENT_STORAGE if is_killed else 400, f"the model cannot be loaded: {reason}")

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.ExitStack() as cleanup:
            return self._send_request(cleanup, "GET", "/ping", b"", {}).status == http.client.OK
        return False

    def _send_request(
        self, cleanup: contextlib.ExitStack, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        """Send a request, and return its response; `cleanup` closes the connection."""
        connection = cleanup.enter_context(contextlib.closing(_UnixConnection(self._socket)))
        connection.request(method, path, body, {name: headers[name] for name in headers if name not in HOP_HEADERS})
        return cleanup.enter_context(connection.getresponse())


def _select_headers(response: http.client.HTTPResponse) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in response.getheaders() if name.lower() not in HOP_HEADERS]


def _require_short_path(path: Path) -> Path:
    """Return the path of a socket.

    Raises:
        HttpError: 500, the kernel does not support a path of this length.
    """
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise HttpError(500, f"the socket {path} has too long a path: set TMPDIR to a folder with a shorter path")
    return path


class _UnixConnection(http.client.HTTPConnection):
    """A connection to an HTTP server on a Unix socket. It has no time limit, because SageMaker ends slow requests."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = connect_unix(self._path, timeout=None)
