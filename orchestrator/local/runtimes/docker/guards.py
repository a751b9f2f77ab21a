"""Guards: containers that share a host's network and run its firewall. See `orchestrator/local/guard`.

A guard starts before its host, and the host joins the guard's network. Therefore, the firewall works from the start of
the host. The host lacks the capabilities to change the firewall (NET_ADMIN) and to bypass it (NET_RAW).
"""

import functools
import logging
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import docker
from docker.errors import ImageNotFound
from docker.models.containers import Container
from docker.models.images import Image

from microjobs_orchestrator import docker_engine
from microjobs_orchestrator.local import guard
from microjobs_orchestrator.local.guard import proof, tunnel
from microjobs_orchestrator.local.guard.settings import READY_LINE, RELAY_PORT, VARIABLE_PREFIX, Settings
from microjobs_orchestrator.local.own_images import find_registry
from microjobs_orchestrator.local.runtimes.archives import pack
from microjobs_orchestrator.local.runtimes.base import (
    CannotRunError,
    HostPlan,
    MachineFailedError,
    Plan,
    WrongPortError,
)
from microjobs_orchestrator.local.runtimes.docker import pulling
from microjobs_orchestrator.local.runtimes.docker.engine import UNREACHABLE_ERRORS, follow_log, make_log_config
from microjobs_orchestrator.local.runtimes.docker.log_frames import LineAssembler
from microjobs_orchestrator.local.runtimes.docker.networks import LOOPBACK
from microjobs_orchestrator.local.runtimes.docker.tunnel import open_tunnel

logger = logging.getLogger(__name__)

IMAGE_VARIABLE = "MICROJOBS_GUARD_IMAGE"
GUARDS_DISABLED = "none"
"""The value of the image's name that disables guards."""
DEFAULT_IMAGE = "python:3.11-slim-bookworm"
JOB_IMAGE_LABEL = "org.microjobs.variant"
"""A label of all images that containers/Dockerfile builds. Each of them has Python."""

ANOTHER_IMAGE_REMEDY = (
    f"name another image: guard_image in [local] of microjobs.toml, or {IMAGE_VARIABLE}. "
    f'"{GUARDS_DISABLED}" disables guards: networks are then unprotected'
)
MISSING_IMAGE_REMEDY = (
    "endpoints, transform jobs and isolated jobs need an image with Python 3 for the container that guards their "
    f"network. Build the image `serve` (`microjobs build serve`), or {ANOTHER_IMAGE_REMEDY}"
)

MEMORY_BYTES = 1 << 30
"""Memory limit of a guard. Only a guard with tunnels needs much memory: each tunnelled connection is a Python process
of 7 MB."""
FOLDER = "/guard"
"""The folder of the guard's program in its container."""
START_TIMEOUT = 60
"""Seconds without a line of output after which a starting guard has failed."""
DIRECT_TIMEOUT = 0.5
"""Seconds for the first connection to a guard's own address, which is not reachable if the engine is in a virtual
machine."""

Connector = Callable[[float], socket.socket]
"""Opens a connection to a guard. Its argument is the timeout in seconds."""


def make_command(module: ModuleType) -> list[str]:
    """Return the command that runs a module of the package `guard` in the container of a guard."""
    return ["python3", "-E", "-s", "-S", "-m", module.__name__]


class Guards:
    """Creates guards on one engine.

    Guards use the configured image. If none is configured, they use the base image: the value of the variable
    PYTHON_IMAGE, or `DEFAULT_IMAGE`. If the engine does not have the base image, guards use the smallest of the
    project's images. If there are none, the base image is pulled. A configured image is pulled, too, if it is missing.
    """

    def __init__(self, client: docker.DockerClient, image: str = "") -> None:
        self._client = client
        self._log_config = make_log_config(client)
        self._image_name = image or os.environ.get(IMAGE_VARIABLE, "")
        self.forwards = False
        """Whether guards forward connections of their hosts to the server."""
        if self._image_name == GUARDS_DISABLED:
            logger.warning(
                "guards are disabled: any local user and container can use endpoints without a signature, and an "
                "isolated model can connect to the services of this machine"
            )

    @property
    def are_enabled(self) -> bool:
        return self._image_name != GUARDS_DISABLED

    def are_needed(self, plan: Plan) -> bool:
        """Return whether the hosts of a plan get guards."""
        return self.are_enabled and (plan.isolated or plan.is_server or self.forwards)

    def create(self, plan: Plan, host: HostPlan, peer_network: str, **options: Any) -> Container:
        """Start a host's guard and wait until it is ready.

        `peer_network` is the gateway and the size of the IPv4 network of the plan's hosts, such as `172.18.0.1/16`; it
        is empty if the host has no peers. `options` are the container's name, labels and network. Raise CannotRunError
        if no image with Python is available, or the kernel has no nftables.
        """
        forwards = self.forwards and not plan.isolated
        settings = Settings(
            secret=secrets.token_hex(32),
            target=host.port or 0,
            isolated=plan.isolated,
            forwards=forwards,
            peers=peer_network,
        )
        options["ports"] = {f"{port}/tcp": (LOOPBACK, port) for port in host.published_ports}
        if host.port:
            options["ports"][f"{RELAY_PORT}/tcp"] = (LOOPBACK, None)
        if plan.isolated:
            options["dns"] = ["127.0.0.1"]  # without this option, the engine would forward the host's DNS queries
        container = self._client.containers.create(
            self._image,
            entrypoint=make_command(guard),
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
            log_config=self._log_config,
            use_config_proxy=False,
            **options,
        )
        package = Path(guard.__file__).parent
        with pack([(package, f"{FOLDER}/{guard.__name__.replace('.', '/')}")]) as archive:
            container.put_archive("/", archive)
        container.start()
        _await_ready(container)
        return container

    def make_join_options(self, guard_container: Container) -> dict[str, Any]:
        """Return the options with which a host's container joins the network of its guard.

        With Docker, the host then also has the guard's hostname. With Podman, it needs the option `hostname`.
        """
        options: dict[str, Any] = {"network_mode": f"container:{guard_container.id}", "cap_drop": ["NET_RAW"]}
        if docker_engine.is_podman(self._client):
            options["hostname"] = guard_container.attrs["Config"]["Hostname"]
        return options

    @functools.cached_property
    def _image(self) -> Image:
        base = self._image_name or os.environ.get("PYTHON_IMAGE") or DEFAULT_IMAGE
        try:
            return self._client.images.get(base)
        except ImageNotFound:
            images = [] if self._image_name else self._list_images()
            # images that users have derived from the project's images also have the label
            repository = f"{find_registry()}/"
            project_images = [item for item in images if any(tag.startswith(repository) for tag in item["RepoTags"])]
            if not project_images:
                return pulling.pull(self._client, base, MISSING_IMAGE_REMEDY)
            return self._client.images.get(min(project_images, key=lambda item: (item["Size"], item["Created"]))["Id"])

    def _list_images(self) -> Sequence[dict[str, Any]]:
        return docker_engine.list_images(self._client, filters={"label": JOB_IMAGE_LABEL})


def is_forwarding_guard(container: Container) -> bool:
    """Return whether a container is a guard that forwards connections to the server."""
    return f"{VARIABLE_PREFIX}FORWARDS=True" in container.attrs["Config"]["Env"]


def _await_ready(container: Container) -> None:
    output = []
    try:
        for line in LineAssembler().read(follow_log(container, START_TIMEOUT)):
            if line.text == READY_LINE.encode():
                return
            output.append(line.text.decode(errors="replace").strip())
    except UNREACHABLE_ERRORS as error:
        message = f"the container that guards the network is not ready after {START_TIMEOUT} s: {error}"
        raise MachineFailedError(message) from error
    raise CannotRunError(f"the container that guards the network ended: {' '.join(output)}: {ANOTHER_IMAGE_REMEDY}")


class GuardedPort:
    """A host's port, reached through its guard. Methods may be called from any thread."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._connector: Connector | None = None
        """The first connector through which the guard has answered."""

    def connect(self, timeout: float) -> socket.socket:
        """Open a connection, as `Host.connect` does."""
        if self._connector is not None:
            return self._authenticate(self._connector(timeout), timeout)
        return self._try_connectors(timeout)

    def _try_connectors(self, timeout: float) -> socket.socket:
        direct, published, tunnelled = self._list_connectors()
        for connector, connect_timeout in ((direct, min(timeout, DIRECT_TIMEOUT)), (published, timeout)):
            try:
                return self._try_connector(connector, connect_timeout, timeout)
            except (proof.NotListeningError, WrongPortError):
                raise
            except OSError as error:
                logger.debug("a guard cannot be reached by %s: %s", connector, error)
        return self._try_connector(tunnelled, timeout, timeout)

    def _list_connectors(self) -> tuple[Connector, Connector, Connector]:
        """Return the connectors of the guard, the fastest one first: its address, its published port, and a tunnel."""
        self._container.reload()
        network_settings = self._container.attrs["NetworkSettings"]
        if not (published := network_settings["Ports"].get(f"{RELAY_PORT}/tcp")):
            raise ConnectionRefusedError("the container that guards the network has ended")
        network = next(iter(network_settings["Networks"].values()))
        return (
            functools.partial(_connect, str(network["IPAddress"]), RELAY_PORT),
            # The address of the engine's port proxy. Like the engine, it may be on another machine.
            functools.partial(_connect, str(published[0]["HostIp"]), int(published[0]["HostPort"])),
            self._open_tunnel,
        )

    def _open_tunnel(self, _: float) -> socket.socket:
        return open_tunnel(self._container, make_command(tunnel))

    def _try_connector(self, connector: Connector, connect_timeout: float, timeout: float) -> socket.socket:
        try:
            connection = self._authenticate(connector(connect_timeout), timeout)
        except (proof.NotListeningError, WrongPortError):
            self._connector = connector  # this connector is used from now on, because the guard has answered
            raise
        self._connector = connector
        return connection

    def _authenticate(self, connection: socket.socket, timeout: float) -> socket.socket:
        try:
            connection.settimeout(timeout)
            proof.prove_to_guard(connection, self._read_secret())
        except BaseException as error:
            connection.close()
            if isinstance(error, proof.OnDefaultPortError):
                raise WrongPortError(str(error)) from error
            raise
        return connection

    def _read_secret(self) -> str:
        variables = dict(item.split("=", 1) for item in self._container.attrs["Config"]["Env"])
        return str(variables[f"{VARIABLE_PREFIX}SECRET"])


def _connect(address: str, port: int, timeout: float) -> socket.socket:
    connection = socket.create_connection((address, port), timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def connect_unguarded(container: Container, port: int, timeout: float) -> socket.socket:
    """Connect to a host without a guard."""
    container.reload()
    network_settings = container.attrs["NetworkSettings"]
    if published := network_settings["Ports"].get(f"{port}/tcp"):
        return socket.create_connection((published[0]["HostIp"], int(published[0]["HostPort"])), timeout)
    # An internal network has no published ports. On Linux, this machine reaches it directly.
    address = next(network["IPAddress"] for network in network_settings["Networks"].values())
    if not address:
        raise ConnectionRefusedError("the container has ended")
    return socket.create_connection((address, port), timeout)
