"""Client for the Docker engine that the Docker CLI would use, and functions for the differences of Podman's API."""

import contextlib
import os
import socket
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from docker import APIClient, DockerClient
from docker.context import ContextAPI
from docker.errors import DockerException, NotFound

from microjobs_orchestrator import ssh_engine
from microjobs_orchestrator.ssh_engine import SshError, SshForwarder

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
TIMEOUT_SECONDS = 60
NO_LIMITS_MESSAGE = "the engine does not limit the memory and the processors of containers"
LOCAL_HOST_NAMES = ("localhost", "127.0.0.1", "::1")
ARCHITECTURES_32_BIT = {"amd64": "386", "arm64": "arm"}
"""For each 64-bit architecture, the 32-bit architecture that its machines run natively."""
PODMAN_PREFIXES = ("docker.io/library/", "docker.io/", "localhost/")
"""Registries that Podman adds to the names of images. Podman also finds these images by names without a registry."""


class _EngineApi(APIClient):
    """The engine's API. It trusts only the certificates of the engine's settings.

    Without this class, the library `requests` would trust the certificates of REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE.
    """

    def merge_environment_settings(self, *arguments: Any) -> Any:
        return {**super().merge_environment_settings(*arguments), "verify": self.verify}


class _EngineClient(DockerClient):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.api = _EngineApi(*arguments, **options)
        self.close_forwarder: Callable[[], object] = lambda: None
        self.address = ""
        """The address in the user's settings."""

    def close(self) -> None:
        super().close()
        self.close_forwarder()


def find_address(environ: Mapping[str, str]) -> str:
    """Return the engine's address as the Docker CLI finds it: DOCKER_HOST, the current context, the default socket."""
    if host := environ.get("DOCKER_HOST"):
        return host  # the context is not read, because its file may be damaged
    return ContextAPI.kwargs_from_context(environment=dict(environ)).get("base_url") or DEFAULT_SOCKET


def find_rootless_address(environ: Mapping[str, str]) -> str:
    """Return the address of this user's rootless engine if its socket is in the usual place; otherwise, return an
    empty text."""
    folder = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    sockets = (folder / name for name in ("docker.sock", "podman/podman.sock"))
    return next((f"unix://{path}" for path in sockets if path.is_socket()), "")


def connect(
    *, timeout: int = TIMEOUT_SECONDS, max_pool_size: int = 10, environ: Mapping[str, str] = os.environ
) -> DockerClient:
    """Connect to the engine.

    Args:
        timeout: seconds that one request to the engine may take.
        max_pool_size: connections kept open.

    Raises:
        DockerException: no engine answers.
    """
    address = find_address(environ)
    if address.startswith(("unix://", "http+unix://")):
        path = address.partition("unix://")[2]
        _check_socket(f"/{path.lstrip('/')}", timeout)  # the SDK also adds a missing slash
    if address.startswith(ssh_engine.PREFIX):
        return _connect_over_ssh(address, timeout, max_pool_size)
    client = _EngineClient.from_env(timeout=timeout, max_pool_size=max_pool_size, environment=dict(environ))
    cast("_EngineClient", client).address = address
    return client


def _connect_over_ssh(address: str, timeout: int, max_pool_size: int) -> DockerClient:
    try:
        forwarder = SshForwarder(address, timeout)
    except SshError as error:
        raise DockerException(str(error)) from error
    try:
        client = _EngineClient(forwarder.address, timeout=timeout, max_pool_size=max_pool_size)
        client.address = address
    except BaseException:
        forwarder.close()
        raise
    # the finalizer runs even if `close` is never called
    client.close_forwarder = weakref.finalize(client, forwarder.close)
    return client


def _check_socket(path: str, timeout: int) -> None:
    """Connect to the engine's Unix socket once.

    If the Docker SDK cannot connect, it does not close its socket, and Python warns later, in unrelated code.
    Therefore, this function connects first, and raises the error if no engine listens.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(timeout)
        try:
            probe.connect(path)
        except OSError as error:
            raise DockerException(f"{path}: {error.strerror or error}") from error


def is_podman(client: DockerClient) -> bool:
    """Return whether the engine is Podman, with its Docker-compatible API."""
    components = client.version().get("Components") or ()
    return any(component["Name"].startswith("Podman") for component in components)


def is_remote(client: DockerClient) -> bool:
    """Return whether the engine is on another machine, as far as its address shows this."""
    url = urlsplit(getattr(client, "address", ""))
    return url.scheme == "ssh" or bool(url.hostname and url.hostname not in LOCAL_HOST_NAMES)


def is_rootless(client: DockerClient) -> bool:
    """Return whether the engine runs without root privileges. In the networks of such an engine, this machine has no
    address."""
    if "name=rootless" in (client.info().get("SecurityOptions") or ()):
        return True
    if not is_podman(client):
        return False
    # Podman 4 reports this only in its own API.
    response = client.api.get(f"{client.api.base_url}/v4.0.0/libpod/info", timeout=client.api.timeout)
    response.raise_for_status()
    return bool(response.json()["host"]["security"]["rootless"])


def can_limit_containers(client: DockerClient) -> bool:
    """Return whether the engine can limit the memory and the processors of containers."""
    info = client.info()
    # With version 1 of cgroups, a rootless engine cannot set limits, but rootless Podman reports that it can.
    if info.get("CgroupVersion") == "1" and is_rootless(client):
        return False
    return bool(info.get("MemoryLimit", True) and info.get("CpuCfsQuota", True))


def get_architecture(client: DockerClient) -> str:
    """Return the architecture of the engine's machine, in the terms that images use: `amd64`, `arm64`, …"""
    return str(client.version().get("Arch", ""))


def is_native(architecture: str, machine_architecture: str) -> bool:
    """Return whether a machine runs images of an architecture without an emulator; True if one of them is unknown."""
    return (
        not architecture
        or not machine_architecture
        or architecture in (machine_architecture, ARCHITECTURES_32_BIT.get(machine_architecture))
    )


def list_emulated_images(client: DockerClient) -> dict[str, str]:
    """Return the architectures of images that the engine's machine cannot run natively, by the images' names."""
    machine_architecture = get_architecture(client)
    architectures: dict[str, str] = {}
    for image in list_images(client) if machine_architecture else ():
        for tag in image["RepoTags"]:
            with contextlib.suppress(NotFound):  # the image was removed after it was listed
                architecture = client.images.get(tag).attrs.get("Architecture", "")
                architectures.update({} if is_native(architecture, machine_architecture) else {tag: architecture})
    return architectures


def list_images(client: DockerClient, **options: Any) -> Sequence[dict[str, Any]]:
    """Return the engine's descriptions of its images, each with `RepoTags` in Docker's form.

    Args:
        options: arguments of the SDK, such as `filters`.
    """
    # The SDK's `images.list` would send one more request per image, and fail if the image was removed meanwhile.
    images = client.api.images(**options)
    prefixes = PODMAN_PREFIXES if is_podman(client) else ()
    return [{**image, "RepoTags": [_shorten(tag, prefixes) for tag in image.get("RepoTags") or ()]} for image in images]


def _shorten(tag: str, prefixes: Sequence[str]) -> str:
    return next((tag.removeprefix(prefix) for prefix in prefixes if tag.startswith(prefix)), tag)
