"""Runtime `docker`: runs each host in a container, through the engine's API.

Files that a host writes stay in its container and in the engine's volumes, and are copied through the API. Therefore,
the caller's folders contain no files that root owns, and the removal of the container removes its files.
"""

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.models.networks import Network
from docker.models.volumes import Volume
from docker.types import DeviceRequest, Mount

from microjobs.contract import DEFAULT_ROOT
from microjobs_orchestrator import docker_engine
from microjobs_orchestrator.local.guard.settings import SERVER_PORT
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.runtimes import pipes
from microjobs_orchestrator.local.runtimes.archives import pack
from microjobs_orchestrator.local.runtimes.base import (
    CannotRunError,
    Host,
    HostLimits,
    HostPlan,
    Image,
    Input,
    MachineFailedError,
    Plan,
)
from microjobs_orchestrator.local.runtimes.docker import container_pipes, images
from microjobs_orchestrator.local.runtimes.docker.engine import (
    RETRY_DELAY_SECONDS,
    UNREACHABLE_ERRORS,
    EngineUnreachableError,
    make_log_config,
    retry_while_unreachable,
)
from microjobs_orchestrator.local.runtimes.docker.forwarding import Forwarding
from microjobs_orchestrator.local.runtimes.docker.guards import (
    GuardedPort,
    Guards,
    connect_unguarded,
    is_forwarding_guard,
)
from microjobs_orchestrator.local.runtimes.docker.host import Connect, DockerHost
from microjobs_orchestrator.local.runtimes.docker.labels import (
    CONTAINERS_LABEL,
    GUARD_LABEL,
    HOST_LABEL,
    PLAN_LABEL,
    PORT_LABEL,
    Labels,
)
from microjobs_orchestrator.local.runtimes.docker.networks import DESKTOP_HOST, LOOPBACK, Networks, find_ipv4_interface
from microjobs_orchestrator.local.runtimes.docker.overlays import Overlays
from microjobs_orchestrator.local.runtimes.gpus import select_gpus

logger = logging.getLogger(__name__)

REMOVE_TIMEOUT = 60.0
"""Seconds for the engine to remove a plan. The engine may still execute a removal that a killed server requested."""


class NameConflictError(Exception):
    """A container or network of the plan already exists."""


class DockerRuntime:
    """Runs plans on a Docker engine."""

    name = "docker"

    def __init__(self, home: Home, client: docker.DockerClient | None = None, *, guard_image: str = "") -> None:
        self._client = client or docker_engine.connect(max_pool_size=100)
        self._info: Mapping[str, Any] = self._client.info()
        self._limits_containers = docker_engine.can_limit_containers(self._client)
        self._log_config = make_log_config(self._client)
        self._labels = Labels(home)
        self._overlays = Overlays(self._client)
        self._guards = Guards(self._client, guard_image)
        self._networks = Networks(self._client, self._labels)
        self._forwarding: Forwarding | None = None

    @property
    def machine_address(self) -> str:
        return LOOPBACK if self._forwarding else self._bridge_address

    @functools.cached_property
    def _bridge_address(self) -> str:
        """The bridge's address, or the name that Docker Desktop defines for this machine; empty if containers cannot
        reach this machine."""
        if "Docker Desktop" in self._info["OperatingSystem"]:
            return DESKTOP_HOST
        if docker_engine.is_remote(self._client) or docker_engine.is_rootless(self._client):
            return ""
        bridge = self._client.networks.get("bridge").attrs["IPAM"]["Config"][0]
        return str(bridge.get("Gateway") or bridge["Subnet"].rsplit(".", 1)[0] + ".1")

    @functools.cached_property
    def machine_address_exists_only_while_hosts_run(self) -> bool:
        """True on Podman, where the bridge and its address exist only while a container uses them."""
        return docker_engine.is_podman(self._client)

    def forward(self, port: int) -> int | None:
        if not self._guards.are_enabled:
            return None
        self._guards.forwards, self._forwarding = True, Forwarding(port)
        return SERVER_PORT

    def prepare(self, image: str, stopped: threading.Event | None = None) -> str | None:
        return images.prepare(self._client, image, stopped)

    def images(self) -> Sequence[Image]:
        return images.list_images(self._client)

    def start(self, plan: Plan) -> Sequence[Host]:
        if any(host.limits for host in plan.hosts) and not self._limits_containers:
            logger.warning("%s: %s", plan.name, docker_engine.NO_LIMITS_MESSAGE)
        deadline = time.monotonic() + REMOVE_TIMEOUT
        while True:
            try:
                return retry_while_unreachable(lambda: self._start_all(plan)) or ()
            except EngineUnreachableError as error:
                raise MachineFailedError(f"{plan.name} could not be started: {error}") from error
            except NameConflictError as error:
                # If a connection breaks, the engine still completes the request, perhaps after the plan was removed.
                # The objects of that request have the names of the new objects. `_start_all` has removed the old
                # objects, so the next attempt can succeed.
                if time.monotonic() > deadline:
                    raise CannotRunError(str(error)) from error
                time.sleep(RETRY_DELAY_SECONDS)

    def _start_all(self, plan: Plan) -> Sequence[Host]:
        """Start all hosts, or no host. Raise NameConflictError while the engine still removes the hosts of an earlier
        start."""
        try:
            network = self._networks.create(plan, self._make_plan_labels(plan), guarded=self._guards.are_needed(plan))
            with ThreadPoolExecutor(len(plan.hosts)) as pool:
                return list(pool.map(lambda host: self._start_host(plan, host, network), plan.hosts))
        except BaseException as error:
            self.remove(plan.name)
            if not isinstance(error, APIError):
                raise
            reason = f"the engine could not start {plan.name}: {error.explanation or error}"
            # Podman reports a conflict with the status 500, and only its message states the conflict.
            if error.status_code == HTTPStatus.CONFLICT or "is already in use by" in reason:
                raise NameConflictError(reason) from error
            # A status 4xx is an error of the plan: for example, the image does not have the program.
            error_type = CannotRunError if error.is_client_error() else MachineFailedError
            raise error_type(reason) from error

    def _start_host(self, plan: Plan, host: HostPlan, network: Network | None) -> Host:
        options = self._networks.make_container_options(plan, host, network, self.machine_address)
        if not self._guards.are_needed(plan):
            options["ports"] = {f"{port}/tcp": (LOOPBACK, port) for port in host.published_ports}
            if host.port is not None and not plan.isolated:  # internal networks have no published ports
                options["ports"][f"{host.port}/tcp"] = (LOOPBACK, None)
            return self._launch(plan, host, None, {"hostname": host.name, **options})
        guard = self._guards.create(
            plan,
            host,
            peer_network=find_ipv4_interface(network) if len(plan.hosts) > 1 and not plan.is_server else "",
            name=self._labels.make_guard_name(plan, host.name),
            labels={**self._make_plan_labels(plan), GUARD_LABEL: host.name},
            **options,
        )
        if self._forwarding and not plan.isolated:
            self._forwarding.start(guard)
        return self._launch(plan, host, guard, self._guards.make_join_options(guard))

    def _launch(self, plan: Plan, host: HostPlan, guard: Container | None, options: Mapping[str, Any]) -> Host:
        overlaid_inputs, copied_inputs = self._overlays.divide(host.inputs)
        pipe_paths = [pipe.get_path(0) for pipe in host.pipes]
        container = self._create(plan, host, options, overlaid_inputs)
        try:
            with pack([(host.files, DEFAULT_ROOT), *((item.source, item.path) for item in copied_inputs)]) as archive:
                container.put_archive("/", archive)
            for path in pipe_paths:
                container_pipes.make_pipe(container, path)
            container.start()
        except APIError as error:
            if not (overlaid_inputs and self._overlays.disable_if_refused(error)):
                raise
            container.remove(force=True, v=True)
            return self._launch(plan, host, guard, options)
        fill_pipe = functools.partial(container_pipes.fill_pipe, container, pipe_paths)
        return pipes.fill_pipes(DockerHost(container, _make_connector(container, guard)), host.pipes, fill_pipe)

    def _create(
        self, plan: Plan, host: HostPlan, options: Mapping[str, Any], overlaid_inputs: Sequence[Input]
    ) -> Container:
        labels = {**self._make_plan_labels(plan), HOST_LABEL: host.name, PORT_LABEL: str(host.port or "")}
        mounts = [
            Mount(item.path, self._overlays.make_volume(item.source, labels), read_only=item.read_only)
            for item in overlaid_inputs
        ]
        return self._client.containers.create(
            host.image,
            command=None if host.arguments is None else list(host.arguments),
            entrypoint=None if host.entrypoint is None else list(host.entrypoint),
            name=self._labels.make_container_name(plan, host.name),
            environment=host.merge_variables(images.read_variables(self._client, host.image)),
            # Docker's SDK would give the proxies of the user's configuration to isolated hosts, too
            use_config_proxy=False,
            labels=labels,
            mounts=mounts,  # `volumes` would split a path at its colons
            log_config=self._log_config,
            **options,
            **self._make_resource_options(host),
        )

    def _make_resource_options(self, host: HostPlan) -> dict[str, Any]:
        limits = host.limits or HostLimits()
        # Data loaders pass arrays in /dev/shm; Docker's default of 64 MB is too small.
        options: dict[str, Any] = {"shm_size": (limits.memory_bytes or self._info["MemTotal"]) // 2}
        if limits.memory_bytes:
            options |= {"mem_limit": limits.memory_bytes, "memswap_limit": limits.memory_bytes}
        if host.limits:
            options["nano_cpus"] = round(min(limits.cpus, self._info["NCPU"]) * 1e9)
        gpus = select_gpus(host)
        if gpus != () and "nvidia" in self._info.get("Runtimes", {}):
            selection = {"count": -1} if gpus is None else {"device_ids": list(gpus)}
            options["device_requests"] = [DeviceRequest(**selection, capabilities=[["gpu"]])]
        return options

    def find_hosts(self) -> Mapping[str, Sequence[Host]]:
        listed_containers, other_objects = self._list_objects(self._labels.make_common_labels())
        containers: dict[str, list[Container]] = {}
        if self._forwarding:
            for guard in filter(is_forwarding_guard, listed_containers):
                self._forwarding.start(guard)
        for container in listed_containers:
            containers.setdefault(container.labels[PLAN_LABEL], []).append(container)
        for item in other_objects:
            containers.setdefault(item.attrs["Labels"][PLAN_LABEL], [])
        return {name: _make_hosts(plan_containers) for name, plan_containers in containers.items()}

    def remove(self, plan_name: str) -> None:
        deadline = time.monotonic() + REMOVE_TIMEOUT
        while problem := retry_while_unreachable(lambda: self._try_remove_plan(plan_name)):
            if time.monotonic() > deadline:
                message = f"the engine did not remove {plan_name} within {REMOVE_TIMEOUT:g} s: {problem}"
                raise EngineUnreachableError(message)
            time.sleep(RETRY_DELAY_SECONDS)

    def _try_remove_plan(self, plan_name: str) -> str:
        """Return the reason why an object of a plan is not removed; empty if all objects are removed."""
        containers, other_objects = self._list_objects(self._labels.make_common_labels(plan_name))
        removals = [functools.partial(container.remove, force=True, v=True) for container in containers]
        removals += [functools.partial(item.remove) for item in other_objects]
        # the list is complete before the check, so that each removal is tried
        problems = list(map(_try_remove_object, removals))
        return next(filter(None, problems), "")

    def _list_objects(self, labels: Mapping[str, str]) -> tuple[Sequence[Container], Sequence[Volume | Network]]:
        """Return the containers with all the labels, and the volumes and networks with all the labels."""
        filters: dict[str, Any] = {"label": [f"{name}={value}" for name, value in labels.items()]}
        containers = self._client.containers.list(all=True, ignore_removed=True, filters=filters)
        other_objects: list[Volume | Network] = list(self._client.volumes.list(filters=filters))
        other_objects += self._client.networks.list(filters=filters)
        # Podman also lists volumes that have only one of the labels, so the labels are compared again.
        return containers, [item for item in other_objects if labels.items() <= (item.attrs["Labels"] or {}).items()]

    def cancel_installations(self) -> None:
        """Do nothing: images have their packages already."""

    def close(self) -> None:
        if self._forwarding:
            self._forwarding.close()
        # an error means that plans that keep running use this network
        with contextlib.suppress(APIError, *UNREACHABLE_ERRORS):
            self._networks.remove_serving_network()
        self._client.close()

    def _make_plan_labels(self, plan: Plan) -> dict[str, str]:
        return self._labels.make_plan_labels(plan, len(plan.hosts) * (2 if self._guards.are_needed(plan) else 1))


def _make_hosts(containers: Sequence[Container]) -> Sequence[Host]:
    """Return the hosts of a plan; none if some were not started, or cannot be reached because their guard ended."""
    started_containers = [container for container in containers if container.status != "created"]
    if not all(container.labels[CONTAINERS_LABEL] == str(len(started_containers)) for container in containers):
        return ()
    guards = {
        container.labels[GUARD_LABEL]: container for container in started_containers if GUARD_LABEL in container.labels
    }
    hosts = [container for container in started_containers if HOST_LABEL in container.labels]
    if any(guards[host.labels[HOST_LABEL]].status != "running" for host in hosts if guards and host.labels[PORT_LABEL]):
        return ()
    docker_hosts = [DockerHost(host, _make_connector(host, guards.get(host.labels[HOST_LABEL]))) for host in hosts]
    return tuple(sorted(docker_hosts, key=lambda host: host.name))


def _make_connector(host: Container, guard: Container | None) -> Connect:
    if guard is not None:
        return GuardedPort(guard).connect
    return functools.partial(connect_unguarded, host, int(host.labels[PORT_LABEL] or 0))


def _try_remove_object(removal: Callable[[], None]) -> str:
    """Return the reason why the engine's object is not removed; empty if it is removed.

    The status 409, 403 or 5xx is such a reason: for example, another request is removing the object, or a container
    uses it. Podman then answers 500. Errors with another status are raised.
    """
    try:
        removal()
    except NotFound:
        return ""
    except APIError as error:
        if not (error.is_server_error() or error.status_code in (HTTPStatus.CONFLICT, HTTPStatus.FORBIDDEN)):
            raise
        return str(error.explanation)
    return ""
