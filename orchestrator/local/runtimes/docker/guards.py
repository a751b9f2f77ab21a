"""Guards: containers that share the network of a host and decide who may use it; see `orchestrator/local/guard`.

A guard starts before its host, so the host is never without one, and the host joins its network. The host has no right
to change the firewall (NET_ADMIN) or to go around it (NET_RAW).
"""

import contextlib
import logging
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound
from docker.models.containers import Container
from docker.models.images import Image
from docker.types import LogConfig
from requests.exceptions import RequestException

from microjobs_orchestrator.local import guard
from microjobs_orchestrator.local.guard import proof
from microjobs_orchestrator.local.guard.settings import PREFIX, READY, RELAY_PORT, Settings
from microjobs_orchestrator.local.runtimes.archives import packed
from microjobs_orchestrator.local.runtimes.base import CannotRunError, HostPlan, MachineFailedError, Plan

logger = logging.getLogger(__name__)

IMAGE = "MICROJOBS_GUARD_IMAGE"
NO_IMAGE = "none"
"""As the image: hosts have no guards."""
DEFAULT_IMAGE = "python:3.11-slim-bookworm"
OURS = ("serve", "preprocess", "batch-score", "train-pytorch", "train-tensorflow")
"""Our images, the smallest first: each has Python."""

GUARD_LABEL = "org.microjobs.guard"
"""The name of the host that a guard is for."""

MEMORY_BYTES = 256 << 20
FOLDER = "/guard"
START_SECONDS = 60
POLL_SECONDS = 0.02
DIRECT_SECONDS = 0.5
"""What a guard's own address gets to answer. It never does where the engine is in a virtual machine."""


class Guards:
    """Makes guards on one engine.

    Args:
        image: their image; empty: one that the engine has, else the default.
    """

    def __init__(self, client: docker.DockerClient, image: str = "") -> None:
        self._client = client
        self._wanted = image or os.environ.get(IMAGE, "")
        self._image: Image | None = None
        if self._wanted == NO_IMAGE:
            logger.warning(
                "guard image none: any local user and container can use endpoints without a signature, and an isolated "
                "model reaches the services of this machine"
            )

    def are_needed(self, plan: Plan) -> bool:
        """Whether the hosts of a plan have guards."""
        return self._wanted != NO_IMAGE and (plan.isolated or any(host.port for host in plan.hosts))

    def create(self, plan: Plan, host: HostPlan, peers: str, **options: Any) -> Container:
        """Start a host's guard; it is ready when this returns.

        Args:
            peers: the IPv4 network of the plan's hosts, if they have one of their own.
            options: the container's name, labels and network.

        Raises:
            CannotRunError: there is no image with Python, or the kernel has no nftables.
        """
        settings = Settings(secrets.token_hex(32), host.port or 0, plan.isolated, peers)
        if host.port:
            options["ports"] = {f"{RELAY_PORT}/tcp": ("127.0.0.1", None)}
        if plan.isolated:
            options["dns"] = ["127.0.0.1"]  # else the engine would ask other servers for it
        container = self._client.containers.create(
            self._get_image(),
            entrypoint=["python3", "-E", "-s", "-S", "-m", guard.__name__],
            command=[],
            environment={**settings.to_environment(), "PYTHONDONTWRITEBYTECODE": "1"},
            hostname=host.name,
            user="0",
            working_dir=FOLDER,
            cap_drop=["ALL"],
            cap_add=["NET_ADMIN"],
            security_opt=["no-new-privileges"],
            mem_limit=MEMORY_BYTES,
            healthcheck={"test": ["NONE"]},
            log_config=LogConfig(type="local"),
            **options,
        )
        package = Path(guard.__file__).parent
        with packed([(package, f"{FOLDER}/{guard.__name__.replace('.', '/')}")]) as archive:
            container.put_archive("/", archive)
        container.start()
        _await(container)
        return container

    def _get_image(self) -> Image:
        if self._image is None:
            self._image = self._find_image()
        return self._image

    def _find_image(self) -> Image:
        base = self._wanted or os.environ.get("PYTHON_IMAGE") or DEFAULT_IMAGE
        registry = os.environ.get("REGISTRY") or "microjobs"
        try:
            return self._client.images.get(base)
        except ImageNotFound:
            ours = () if self._wanted else (f"{registry}/{name}" for name in OURS)
            found = next((image for name in ours for image in self._client.images.list(name)), None)
            return found or self._pull(base)

    def _pull(self, name: str) -> Image:
        logger.info("pulling %s for the guards of networks", name)
        try:
            pulled: Image = self._client.images.pull(name)
        except (APIError, RequestException) as error:
            reason = str(getattr(error, "explanation", None) or error).strip()
            raise CannotRunError(
                f"endpoints, transform jobs and isolated jobs need an image with Python 3 for the container that "
                f"guards their network: {name} cannot be pulled ({reason}). Build ours (`microjobs build serve`), or "
                f'name another one: guard_image in [local] of microjobs.toml, or {IMAGE}. "{NO_IMAGE}" does without, '
                "unprotected"
            ) from error
        return pulled


def _await(container: Container) -> None:
    """Wait until a guard has set up its firewall."""
    deadline = time.monotonic() + START_SECONDS
    while READY.encode() not in (said := container.logs()).splitlines():
        container.reload()
        if container.status not in ("created", "running"):
            raise CannotRunError(
                f"the container that guards the network ended: {said.decode(errors='replace').strip()}. {IMAGE}, or "
                f"guard_image in [local] of microjobs.toml, names another image for it; {NO_IMAGE!r} does without it, "
                "unprotected"
            )
        if time.monotonic() > deadline:
            raise MachineFailedError(f"the container that guards the network is not ready after {START_SECONDS} s")
        time.sleep(POLL_SECONDS)


def joined(container: Container) -> dict[str, Any]:
    """Options of a host's container that put it behind its guard."""
    return {"network_mode": f"container:{container.id}", "cap_drop": ["NET_RAW"]}


class Door:
    """The way to a host's port through its guard. Methods may be called from any thread."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._address: tuple[str, int] | None = None

    def connect(self, timeout: float) -> socket.socket:
        """As `Host.connect`."""
        if self._address is not None:
            return self._open(self._address, timeout)
        self._container.reload()
        settings = self._container.attrs["NetworkSettings"]
        if not (published := settings["Ports"].get(f"{RELAY_PORT}/tcp")):
            raise ConnectionRefusedError("the container that guards the network has ended")
        (network,) = settings["Networks"].values()
        with contextlib.suppress(OSError):  # the way through the engine's proxy is longer
            return self._first((str(network["IPAddress"]), RELAY_PORT), min(timeout, DIRECT_SECONDS))
        return self._first((str(published[0]["HostIp"]), int(published[0]["HostPort"])), timeout)

    def _first(self, address: tuple[str, int], timeout: float) -> socket.socket:
        connection = self._open(address, timeout)
        self._address = address
        return connection

    def _open(self, address: tuple[str, int], timeout: float) -> socket.socket:
        connection = socket.create_connection(address, timeout)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(timeout)
            proof.call(connection, self._secret())
        except BaseException:
            connection.close()
            raise
        return connection

    def _secret(self) -> str:
        variables = dict(item.split("=", 1) for item in self._container.attrs["Config"]["Env"])
        return str(variables[f"{PREFIX}SECRET"])


def unguarded(container: Container, port: int, timeout: float) -> socket.socket:
    """Connect to a host without a guard."""
    container.reload()
    settings = container.attrs["NetworkSettings"]
    if published := settings["Ports"].get(f"{port}/tcp"):
        return socket.create_connection((published[0]["HostIp"], int(published[0]["HostPort"])), timeout)
    # A network without a way out has no published ports; on Linux this machine reaches it directly.
    address = next(network["IPAddress"] for network in settings["Networks"].values())
    if not address:
        raise ConnectionRefusedError("the container has ended")
    return socket.create_connection((address, port), timeout)
