"""One host of runtime `docker`: a container, followed, stopped and copied from, also over a restart of the engine."""

import itertools
import logging
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from docker.errors import APIError, DockerException, NotFound, create_api_error_from_http_exception
from docker.models.containers import Container
from requests.exceptions import HTTPError as HTTPStatusError
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from microjobs_orchestrator.local.runtimes.archives import unpack
from microjobs_orchestrator.local.runtimes.base import Exit, Line
from microjobs_orchestrator.local.runtimes.docker.log_frames import Lines
from microjobs_orchestrator.local.trees import Tree, discard

logger = logging.getLogger(__name__)

HOST_LABEL = "org.microjobs.host"

ENGINE_BACK_SECONDS = 120
"""How long the engine is waited for when it does not answer: it may be restarting."""
AGAIN_SECONDS = 0.2
DEAF_SECONDS = 1.0
"""After its start a container's first process may have no handlers yet, and for that one the kernel drops signals: it
would run on until it is killed."""
CHUNK = 1 << 16
ARCHIVE_CHUNK = 1 << 20

AWAY = (RequestException, HTTPError)
"""What is raised when the engine does not answer, or not to the end."""

AWAY_STATUS = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)

LEAVING = ("removing", "dead")
"""The status of a container that somebody is removing."""

Connect = Callable[[float], socket.socket]
"""As `Host.connect`."""

T = TypeVar("T")


class EngineAwayError(DockerException):
    """The engine did not come back in time."""


class DockerHost:
    """A container."""

    def __init__(self, container: Container, connect: Connect) -> None:
        self.name: str = container.labels[HOST_LABEL]
        self._container = container
        self._connect = connect
        self._hears_from = time.monotonic() + DEAF_SECONDS

    def lines(self) -> Iterator[Line]:
        known = 0
        while True:
            log = Lines()
            try:
                for line in itertools.islice(log.read(self._log()), known, None):
                    known += 1
                    yield line
                if not self._is_running():
                    yield from log.rest()  # a line without an end is one only now
                    return
            except AWAY as error:
                logger.info("the log of %s broke off: %s", self.name, error)
                if patiently(self._state) is None:
                    return
            time.sleep(AGAIN_SECONDS)

    def _log(self) -> Iterator[bytes]:
        """The engine's stream of all that was said, until the container has ended, or the engine."""
        assert self._container.client is not None  # noqa: S101  for mypy
        api = self._container.client.api
        url = f"{api.base_url}/v{api.api_version}/containers/{self._container.id}/logs"
        wanted = {"stdout": 1, "stderr": 1, "follow": 1, "timestamps": 1}
        with api.get(url, params=wanted, stream=True, timeout=None) as response:
            response.raise_for_status()
            while chunk := response.raw.read1(CHUNK):
                yield chunk

    def _is_running(self) -> bool:
        state = patiently(self._state)
        return state is not None and state["Running"]

    def _state(self) -> Mapping[str, Any]:
        self._container.reload()
        state: Mapping[str, Any] = self._container.attrs["State"]
        return state

    def wait(self) -> Exit:
        try:
            answer = patiently(lambda: self._container.wait(timeout=None))
            state = patiently(self._state)
        except EngineAwayError as error:
            return Exit(137, str(error), lost=True)
        if answer is None or state is None or state["Status"] in LEAVING:
            return Exit(137, "its container was removed from outside", lost=True)
        if state["OOMKilled"]:
            return Exit(int(answer["StatusCode"]), "it ran out of memory")
        return Exit(int(answer["StatusCode"]), state["Error"] or None)

    def stop(self, grace: float) -> None:
        time.sleep(max(0.0, self._hears_from - time.monotonic()))
        patiently(lambda: self._container.stop(timeout=round(grace)))

    def copy(self, path: str, to: Path) -> Tree | None:
        def copied() -> Tree:
            discard(to)  # what there is of an attempt that broke off
            with closing(self._archive(path)) as chunks:
                return unpack(chunks, to, path)

        try:
            return patiently(copied)
        except APIError:
            state = patiently(self._state)
            if state is None or state["Status"] in LEAVING:
                return None
            raise

    def _archive(self, path: str) -> Generator[bytes, None, None]:
        """The engine's archive of a path. Close it to end it: it may have terabytes of zeros."""
        assert self._container.client is not None  # noqa: S101  for mypy
        api = self._container.client.api
        url = f"{api.base_url}/v{api.api_version}/containers/{self._container.id}/archive"
        with api.get(url, params={"path": path}, stream=True, timeout=None) as response:
            try:
                response.raise_for_status()
            except HTTPStatusError as error:
                create_api_error_from_http_exception(error)
            yield from response.iter_content(ARCHIVE_CHUNK)

    def connect(self, timeout: float) -> socket.socket:
        try:
            return self._connect(timeout)
        except (*AWAY, APIError) as error:
            raise ConnectionAbortedError(f"the engine does not say where the container listens: {error}") from error


def patiently(ask: Callable[[], T]) -> T | None:
    """Ask the engine, again if it is away for a while; None if what is asked for is gone.

    Raises:
        EngineAwayError: it did not come back within `ENGINE_BACK_SECONDS`.
        APIError: it refuses.
    """
    deadline = None
    while True:
        try:
            return ask()
        except NotFound:
            return None
        except (*AWAY, APIError) as error:
            if isinstance(error, APIError) and error.status_code not in AWAY_STATUS:
                raise
            deadline = deadline or time.monotonic() + ENGINE_BACK_SECONDS
            if time.monotonic() > deadline:
                raise EngineAwayError(f"the engine does not answer: {error}") from error
            time.sleep(AGAIN_SECONDS)
