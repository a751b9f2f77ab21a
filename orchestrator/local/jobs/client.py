"""HTTP to one container that serves a model. Source: facts §2.4."""

import contextlib
import io
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO

import urllib3
from urllib3.exceptions import ClosedPoolError, HTTPError, NewConnectionError
from urllib3.exceptions import TimeoutError as TookTooLongError

CONNECTIONS = 100
"""Kept open at most; more may be in use."""
PING_SECONDS = 2.0
CONNECT_SECONDS = 5.0
CHUNK = 1 << 16


@dataclass(frozen=True)
class Answer:
    """The head of an answer; its body is where the caller wanted it."""

    status: int
    headers: Mapping[str, str]
    """By names of any case."""


class NoAnswerError(Exception):
    """The container did not answer, not in time, or not to the end."""

    def __init__(self, message: str, *, timed_out: bool = False, was_sent: bool = True) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        self.was_sent = was_sent
        """Whether the container may have seen the request."""


class TooLargeError(Exception):
    """The answer is larger than the caller takes."""


class Client:
    """Requests to one container, over connections that stay open. Methods may be called from any thread."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._pool = urllib3.HTTPConnectionPool(*address, maxsize=CONNECTIONS, retries=False)

    def healthy(self) -> bool:
        """Whether `/ping` answers 200 in time."""
        with contextlib.suppress(NoAnswerError):
            return self.request("GET", "/ping", timeout=PING_SECONDS).status == 200
        return False

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float,
        into: IO[bytes] | None = None,
        most: float = float("inf"),
    ) -> Answer:
        """Ask, and copy the answer's body.

        Args:
            body: pieces are sent one by one, in HTTP's chunks unless there is a header Content-Length.
            timeout: seconds for all of it.
            into: where to write the body; None: it is thrown away.
            most: bytes of the body.

        Raises:
            NoAnswerError: there is no whole answer.
            TooLargeError: it has more bytes.
        """
        deadline = time.monotonic() + timeout
        headers = {"User-Agent": "microjobs", **(headers or {})}
        try:
            response = self._pool.urlopen(
                method,
                path,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=min(timeout, CONNECT_SECONDS), read=timeout),
                chunked=not isinstance(body, bytes | None) and "Content-Length" not in headers,
                redirect=False,
                preload_content=False,
            )
            try:
                _copy(response, into or io.BytesIO(), deadline, most)
            finally:
                response.close()  # read to its end, its connection is kept; what is left would be the next answer
        except (HTTPError, OSError) as error:
            late, unsent = isinstance(error, TookTooLongError), isinstance(error, NewConnectionError | ClosedPoolError)
            raise NoAnswerError(str(error), timed_out=late, was_sent=not unsent) from error
        return Answer(response.status, response.headers)

    def close(self) -> None:
        self._pool.close()


def _copy(response: urllib3.BaseHTTPResponse, into: IO[bytes], deadline: float, most: float) -> None:
    size = 0
    chunk = None
    while chunk != b"":
        chunk = response.read1(CHUNK)  # what there is: `stream` would wait for a whole chunk
        size += len(chunk)
        if size > most:
            raise TooLargeError(f"the answer has more than {most} bytes")
        if time.monotonic() > deadline:
            raise NoAnswerError("the answer took too long", timed_out=True)
        into.write(chunk)
