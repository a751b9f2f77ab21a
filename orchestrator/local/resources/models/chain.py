"""Chains of containers: each container processes the response of the previous one.

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

from microjobs_orchestrator.local.resources.models.client import Body, Client, NoResponseError, Response, ResponseHead

MAX_MEMORY_BYTES = 1 << 20
"""Maximum size of a response that is kept in memory between two containers. Larger responses are stored in files."""
BLOCK_BYTES = 1 << 16
BODY_HEADERS = ("Content-Type", "Content-Encoding")
CONTENT_HEADERS = (*BODY_HEADERS, "Content-Length", "Accept")
"""Headers that differ between the requests of a chain. All containers get the client's other headers."""


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
) -> ResponseHead:
    """Post a request, and write the body of the response to a file. Raise as `Client.request` does."""
    with sender.open("POST", path, body, headers, timeout=timeout) as response:
        response.copy_to(into, max_bytes)
    return ResponseHead(response.status, response.headers, response.container)


@dataclass(frozen=True)
class NamedClient:
    """Sends requests to one of several containers. Responses and errors have the container's name."""

    client: Client
    container: str

    def open(self, method: str, path: str, body: Body, headers: Mapping[str, str], *, timeout: float) -> Response:
        try:
            response = self.client.open(method, path, body, headers, timeout=timeout)
        except NoResponseError as error:
            error.container = self.container
            raise
        response.container = self.container
        return response


@dataclass(frozen=True)
class Chain:
    """Sends a request to the first container, and each response to the next container, until the last response.

    A response with an error status ends the chain. The first request has the client's content type, and each later
    request has the content type of the previous response. Only the last request has the client's Accept header.
    """

    senders: Sequence[Sender]
    folder: Path
    """The folder for large responses between two containers."""
    on_response: Callable[[str], None] = lambda _: None
    """A function that is called with the name of each container that has responded, except the last container."""

    def open(self, method: str, path: str, body: Body, headers: Mapping[str, str], *, timeout: float) -> Response:
        """Return the last response, or the first response with an error status. The timeout applies to all requests
        together."""
        deadline = time.monotonic() + timeout
        accept = {name: value for name, value in headers.items() if name == "Accept"}
        common_headers = {name: value for name, value in headers.items() if name not in CONTENT_HEADERS}
        headers = {name: value for name, value in headers.items() if name != "Accept"}
        with contextlib.ExitStack() as files:
            for sender in self.senders[:-1]:
                response = sender.open(method, path, body, headers, timeout=deadline - time.monotonic())
                if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                    return response
                file = files.enter_context(self._store(response))
                self.on_response(response.container)
                body_headers = {name: response.headers[name] for name in BODY_HEADERS if name in response.headers}
                body, headers = (
                    partial(_read_blocks, file),
                    {**common_headers, **body_headers, "Content-Length": str(file.tell())},
                )
            return self.senders[-1].open(method, path, body, {**headers, **accept}, timeout=deadline - time.monotonic())

    def _store(self, response: Response) -> IO[bytes]:
        """Return a file with the body of a response."""
        with contextlib.ExitStack() as cleanup:
            file = cleanup.enter_context(tempfile.SpooledTemporaryFile(MAX_MEMORY_BYTES, dir=str(self.folder)))
            with response:
                response.copy_to(file)
            cleanup.pop_all()
            return file


def _read_blocks(file: IO[bytes]) -> Iterable[bytes]:
    file.seek(0)
    return iter(partial(file.read, BLOCK_BYTES), b"")
