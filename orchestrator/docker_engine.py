"""Client for the Docker engine that the environment names."""

import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

import docker
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.errors import DockerException

if TYPE_CHECKING:
    from docker import DockerClient

TIMEOUT_SECONDS = 60


def connect(
    *, timeout: int = TIMEOUT_SECONDS, max_pool_size: int = 10, environ: Mapping[str, str] = os.environ
) -> "DockerClient":
    """Connect as the Docker CLI does: DOCKER_HOST, then the current context, then the default socket.

    Args:
        timeout: seconds that one request to the engine may take.
        max_pool_size: connections kept open.

    Raises:
        DockerException: no engine answers.
    """
    environment = dict(environ)
    check_socket(environment)
    return docker.from_env(timeout=timeout, max_pool_size=max_pool_size, environment=environment)


def check_socket(environment: dict[str, str]) -> None:
    """Connect to the engine's Unix socket once.

    When a connection fails, the Docker SDK does not close its socket, and Python warns later, in unrelated code.

    Raises:
        DockerException: nothing accepts connections on the socket.
    """
    # With a version, the client sends no request yet.
    client = docker.from_env(version=DEFAULT_DOCKER_API_VERSION, environment=environment)
    try:
        path = getattr(client.api.get_adapter(client.api.base_url), "socket_path", None)
    finally:
        client.close()
    if path is None:  # TCP or SSH
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(client.api.timeout)
        try:
            probe.connect(path)
        except OSError as error:
            raise DockerException(f"{path}: {error.strerror or error}") from error
