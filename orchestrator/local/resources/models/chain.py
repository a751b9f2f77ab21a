"""Requests that the containers of a model process one after the other.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/inference-pipelines.html
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import IO, Protocol

from microjobs_orchestrator.local.resources.models.client import Answer, Body, Client, NoAnswerError, Response

MAX_MEMORY_BYTES = 1 << 20
"""Larger responses between two containers are stored in files."""
BLOCK_BYTES = 1 << 16
BODY_HEADERS = ("Content-Type", "Content-Encoding")
CONTENT_HEADERS = (*BODY_HEADERS, "Content-Length", "Accept")
"""Headers for one request of a chain. All containers get the other headers of the client's request."""


class Sender(Protocol):
    """Sends requests to one container, or to several."""

    def open(self, method: str, path: str, body: Body, headers: Mapping[str, str], *, timeout: float) -> Response:
        """Send a request, and return the response as soon as its headers have arrived. Raise as `Client.open` does."""


def send(
    sender: Sender,
    path: str,
    body: Body,
    headers: Mapping[str, str],
    *,
    timeout: float,
    into: IO[bytes],
    max_bytes: float = float("inf"),
) -> Answer:
    """Post a request, and write the body of the response to a file. Raise as `Client.request` does."""
    response = sender.open("POST", path, body, headers, timeout=timeout)
    with response, _Naming(response.container):
        response.copy_to(into, max_bytes)
    return Answer(response.status, response.headers, response.container)


@dataclass(frozen=True)
class NamedClient:
    """Sends requests to one of several containers. Responses and errors have the container's name."""

    client: Client
    container: str

    def open(self, method: str, path: str, body: Body, headers: Mapping[str, str], *, timeout: float) -> Response:
        with _Naming(self.container):
            response = self.client.open(method, path, body, headers, timeout=timeout)
        response.container = self.container
        return response


@dataclass(frozen=True)
class Chain:
    """Sends a request to the first container, and each response to the next container, until the last response.

    A response with an error status ends the chain. The client's content type belongs to the first request, and the
    client's Accept header to the last one. In between, containers choose the types of their responses.
    """

    senders: Sequence[Sender]
    folder: Path
    """The folder for large responses between two containers."""
    on_response: Callable[[str], None] = lambda _: None
    """Called with the name of each container that has responded, except the last one."""

    def open(self, method: str, path: str, body: Body, headers: Mapping[str, str], *, timeout: float) -> Response:
        """Return the last response, or the first one with an error status. The timeout is for all requests."""
        deadline = time.monotonic() + timeout
        accept = {name: value for name, value in headers.items() if name == "Accept"}
        common = {name: value for name, value in headers.items() if name not in CONTENT_HEADERS}
        headers = {name: value for name, value in headers.items() if name != "Accept"}
        with contextlib.ExitStack() as files:
            for sender in self.senders[:-1]:
                response = sender.open(method, path, body, headers, timeout=deadline - time.monotonic())
                if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                    return response
                file = files.enter_context(self._store(response))
                self.on_response(response.container)
                content = {name: response.headers[name] for name in BODY_HEADERS if name in response.headers}
                body, headers = partial(_read_blocks, file), {**common, **content, "Content-Length": str(file.tell())}
            return self.senders[-1].open(method, path, body, {**headers, **accept}, timeout=deadline - time.monotonic())

    def _store(self, response: Response) -> IO[bytes]:
        """Return a file with the body of a response."""
        with contextlib.ExitStack() as cleanup:
            file = cleanup.enter_context(tempfile.SpooledTemporaryFile(MAX_MEMORY_BYTES, dir=str(self.folder)))
            with response, _Naming(response.container):
                response.copy_to(file)
            cleanup.pop_all()
            return file


class _Naming:
    """Adds the name of a container to errors of the block."""

    def __init__(self, container: str) -> None:
        self._container = container

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, NoAnswerError):
            error.container = self._container


def _read_blocks(file: IO[bytes]) -> Iterable[bytes]:
    file.seek(0)
    return iter(partial(file.read, BLOCK_BYTES), b"")
