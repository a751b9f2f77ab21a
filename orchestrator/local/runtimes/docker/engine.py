"""Requests to a Docker engine that may restart at any time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, TypeVar

from docker import DockerClient
from docker.errors import APIError, DockerException, NotFound, create_api_error_from_http_exception
from docker.models.containers import Container
from docker.types import LogConfig
from requests import HTTPError as HTTPStatusError
from requests import RequestException
from urllib3.exceptions import HTTPError

from microjobs_orchestrator.docker_engine import is_podman

UNREACHABLE_TIMEOUT_SECONDS = 120
"""Seconds for which requests are repeated while the engine does not answer. It may be restarting."""
RETRY_DELAY_SECONDS = 0.2
"""Seconds before a request is repeated."""
READ_BYTES = 1 << 16

UNREACHABLE_ERRORS = (RequestException, HTTPError)
"""Errors of a request that the engine did not answer, or answered only in part."""
UNREACHABLE_STATUSES = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)

T = TypeVar("T")


class EngineUnreachableError(DockerException):
    """The engine did not answer, or did not complete a removal, in time."""


def retry_while_unreachable(request: Callable[[], T]) -> T | None:
    """Send a request, and repeat it while the engine does not answer. Return None if the requested object is missing.

    Raise EngineUnreachableError after `UNREACHABLE_TIMEOUT_SECONDS`, and APIError if the engine refuses the request.
    """
    deadline = None
    while True:
        try:
            return request()
        except NotFound:
            return None
        except (*UNREACHABLE_ERRORS, APIError) as error:
            if isinstance(error, APIError) and error.status_code not in UNREACHABLE_STATUSES:
                raise
            deadline = deadline or time.monotonic() + UNREACHABLE_TIMEOUT_SECONDS
            if time.monotonic() > deadline:
                raise EngineUnreachableError(f"the engine does not answer: {error}") from error
            time.sleep(RETRY_DELAY_SECONDS)


def make_log_config(client: DockerClient) -> LogConfig:
    """Return settings that keep a container's whole log, because a restarted server reads it again.

    The chosen log formats also keep bytes that are not text. Docker's default format, JSON, does not keep them.
    """
    if is_podman(client):
        return LogConfig(type="k8s-file")
    return LogConfig(type="local", config={"max-size": "1p"})


def follow_log(container: Container, timeout: float | None = None) -> Iterator[bytes]:
    """Yield the bytes of a container's log, which `log_frames` splits into lines.

    Raise one of UNREACHABLE_ERRORS after `timeout` seconds of silence.
    """
    options = {"stdout": 1, "stderr": 1, "follow": 1, "timestamps": 1}
    with open_stream(container, "logs", timeout, options) as response:
        while chunk := response.raw.read1(READ_BYTES):
            yield chunk


@contextmanager
def open_stream(container: Container, subpath: str, timeout: float | None, options: dict[str, Any]) -> Iterator[Any]:
    """Open a stream of a container, which can be read in blocks. Raise APIError if the engine refuses the request.

    The functions of docker-py are not used, because they read a stream as a whole or byte by byte.

    Args:
        subpath: the end of the URL, after the container's id, such as `logs`.
        options: the query of the URL.
    """
    assert container.client is not None  # noqa: S101  for mypy
    api = container.client.api
    url = f"{api.base_url}/v{api.api_version}/containers/{container.id}/{subpath}"
    with api.get(url, params=options, stream=True, timeout=timeout) as response:
        try:
            response.raise_for_status()
        except HTTPStatusError as error:
            create_api_error_from_http_exception(error)
        yield response
