"""Runtime `docker`: a container a host, by the engine's API.

Everything that a host writes stays in its container and the engine's volumes, and is copied out by the API. So no file
of root's appears in the caller's folders, and removing the container removes all.
"""

import contextlib
import functools
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.models.networks import Network
from docker.types import DeviceRequest, LogConfig, Mount
from requests.exceptions import RequestException

from microjobs.contract import DEFAULT_ROOT
from microjobs_orchestrator import docker_engine
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.runtimes import pipes
from microjobs_orchestrator.local.runtimes.archives import packed
from microjobs_orchestrator.local.runtimes.base import (
    CannotRunError,
    Host,
    HostPlan,
    Image,
    Input,
    MachineFailedError,
    Plan,
)
from microjobs_orchestrator.local.runtimes.docker import container_pipes
from microjobs_orchestrator.local.runtimes.docker.guards import GUARD_LABEL, Door, Guards, joined, unguarded
from microjobs_orchestrator.local.runtimes.docker.host import (
    AGAIN_SECONDS,
    AWAY,
    HOST_LABEL,
    Connect,
    DockerHost,
    EngineAwayError,
    patiently,
)
from microjobs_orchestrator.local.runtimes.docker.overlays import Overlays

logger = logging.getLogger(__name__)

HOME_LABEL = "org.microjobs.home"
PLAN_LABEL = "org.microjobs.plan"
CONTAINERS_LABEL = "org.microjobs.hosts"
"""How many containers the plan has, guards too."""
PORT_LABEL = "org.microjobs.port"
SERVED_LABEL = "org.microjobs.served"
"""On the network of all hosts that serve, which belongs to no plan."""

NO_HOST_ADDRESS = "com.docker.network.bridge.inhibit_ipv4"
"""This option of a network leaves this machine without an address on it. A network that is `internal` alone gives it
one, and all that listens on all addresses can be reached there."""
MAY_TALK = "com.docker.network.bridge.enable_icc"
"""This option of a network says whether its containers reach each other."""

JOBS = Path(__file__).resolve().parents[4] / "containers"
"""The folders of this repository's own jobs."""

REMOVE_SECONDS = 60.0
"""What the engine gets to remove a plan, which may be under way for a server that was killed."""


class InTheWayError(Exception):
    """A container or network of the plan is there already."""


class DockerRuntime:
    """Runs plans on a Docker engine."""

    name = "docker"

    def __init__(self, home: Home, client: docker.DockerClient | None = None, *, guard_image: str = "") -> None:
        self._client = client or docker_engine.connect(max_pool_size=100)
        self._home = hashlib.sha256(str(home.root.resolve()).encode()).hexdigest()[:8]
        self._info: Mapping[str, Any] = self._client.info()
        self._overlays = Overlays(self._client)
        self._guards = Guards(self._client, guard_image)
        self._served = f"microjobs-{self._home}-served"
        self._lock = threading.Lock()

    @functools.cached_property
    def machine(self) -> str:
        """The bridge's own address; where the engine is in a virtual machine, the name that it gives to this one."""
        if "Docker Desktop" in self._info["OperatingSystem"]:
            return "host.docker.internal"
        bridge = self._client.networks.get("bridge").attrs["IPAM"]["Config"][0]
        return str(bridge.get("Gateway") or bridge["Subnet"].rsplit(".", 1)[0] + ".1")

    def prepare(self, image: str) -> None:
        try:
            if patiently(lambda: self._client.images.get(image)) is None:
                self._pull(image)
        except APIError as error:
            raise CannotRunError(f"image name {image!r} is not valid: {error.explanation}") from error
        except EngineAwayError as error:
            raise MachineFailedError(str(error)) from error

    def images(self) -> Sequence[Image]:
        try:
            found = patiently(self._client.api.images) or ()
        except EngineAwayError:
            return ()
        return [
            Image(tuple(item["RepoTags"]), _digest(item), item["Size"], float(item["Created"]))
            for item in found
            if item.get("RepoTags")
        ]

    def _pull(self, image: str) -> None:
        logger.info("pulling %s", image)
        try:
            self._client.images.pull(image)
        except (APIError, RequestException) as error:
            reason = str(getattr(error, "explanation", None) or error).strip()
            raise CannotRunError(
                f"image {image} is not on this machine and cannot be pulled ({reason}): {_remedy(image)}"
            ) from error

    def start(self, plan: Plan) -> Sequence[Host]:
        deadline = time.monotonic() + REMOVE_SECONDS
        while True:
            try:
                return patiently(lambda: self._start_all(plan)) or ()
            except EngineAwayError as error:
                raise MachineFailedError(f"{plan.name} could not be started: {error}") from error
            except InTheWayError as error:
                # The engine goes on with a request whose connection broke, and may have done so after the removal.
                if time.monotonic() > deadline:
                    raise CannotRunError(str(error)) from error
                time.sleep(AGAIN_SECONDS)

    def _start_all(self, plan: Plan) -> Sequence[Host]:
        """
        Raises:
            InTheWayError: of an earlier start something was left; it is gone now, or will be.
        """
        try:
            network = self._network(plan)
            with ThreadPoolExecutor(len(plan.hosts)) as pool:
                return list(pool.map(lambda host: self._start_host(plan, host, network), plan.hosts))
        except APIError as error:
            self.remove(plan.name)
            if error.status_code == HTTPStatus.CONFLICT:
                raise InTheWayError(f"the engine could not start {plan.name}: {error.explanation or error}") from error
            # The engine answers 4xx to what is wrong with a plan: a program that is not in the image, say.
            raised = CannotRunError if error.is_client_error() else MachineFailedError
            raise raised(f"the engine could not start {plan.name}: {error.explanation or error}") from error
        except BaseException:
            self.remove(plan.name)
            raise

    def _network(self, plan: Plan) -> Network | None:
        """The network of the plan's hosts; None: the engine's own bridge.

        Hosts that serve share one, on which only guards listen. Several hosts, and those that must not reach out, have
        one of their own, which costs 0.3 s. Of the latter this machine has no address on it.
        """
        if self._guards.are_needed(plan) and _serves(plan):
            return self._served_network()
        if len(plan.hosts) == 1 and not plan.isolated:
            return None
        # Without a guard this machine reaches a host that serves by its address.
        options = {NO_HOST_ADDRESS: "true"} if plan.isolated and not _serves(plan) else {}
        return self._client.networks.create(
            self._container_name(plan, "network"),
            internal=plan.isolated,
            options=options,
            labels=self._labels(plan),
            check_duplicate=True,
        )

    def _served_network(self) -> Network:
        with self._lock:
            try:
                return self._client.networks.get(self._served)
            except NotFound:
                labels, options = {SERVED_LABEL: self._home}, {MAY_TALK: "false"}
                return self._client.networks.create(self._served, options=options, labels=labels, check_duplicate=True)

    def _start_host(self, plan: Plan, host: HostPlan, network: Network | None) -> Host:
        options = self._networking(host, network)
        if not self._guards.are_needed(plan):
            if host.port is not None:
                options["ports"] = {f"{host.port}/tcp": ("127.0.0.1", None)}
            return self._launch(plan, host, None, {"hostname": host.name, **options})
        guard = self._guards.create(
            plan,
            host,
            peers=_subnet(network) if len(plan.hosts) > 1 and not _serves(plan) else "",
            # By none of the plan's names: what looks for a host's container by its name finds one.
            name=f"microjobs-{self._home}-guard-{_hash(f'{plan.name}/{host.name}')}",
            labels={**self._labels(plan), GUARD_LABEL: host.name},
            **options,
        )
        return self._launch(plan, host, guard, joined(guard))

    def _launch(self, plan: Plan, host: HostPlan, guard: Container | None, options: Mapping[str, Any]) -> Host:
        overlaid, copied = self._overlays.divide(host.inputs)
        container = self._create(plan, host, options, overlaid)
        try:
            with packed([(host.files, DEFAULT_ROOT), *((item.source, item.path) for item in copied)]) as archive:
                container.put_archive("/", archive)
            for path in map(pipes.first, host.pipes):
                container_pipes.make(container, path)
            container.start()
        except APIError as error:
            if not (overlaid and self._overlays.refused(error)):
                raise
            container.remove(force=True, v=True)
            return self._launch(plan, host, guard, options)
        pour = container_pipes.pourer(container, map(pipes.first, host.pipes))
        return pipes.fed(DockerHost(container, _way(container, guard)), host.pipes, pour)

    def _create(self, plan: Plan, host: HostPlan, options: Mapping[str, Any], overlaid: Sequence[Input]) -> Container:
        labels = {**self._labels(plan), HOST_LABEL: host.name, PORT_LABEL: str(host.port or "")}
        mounts = [
            Mount(item.path, self._overlays.volume(item.source, labels), read_only=item.read_only) for item in overlaid
        ]
        return self._client.containers.create(
            host.image,
            command=None if host.arguments is None else list(host.arguments),
            entrypoint=None if host.entrypoint is None else list(host.entrypoint),
            name=self._container_name(plan, host.name),
            environment=dict(host.environment),
            labels=labels,
            mounts=mounts,  # `volumes` would split a path at its colons
            # Kept whole whatever the engine's default is: it is read again after a restart of the server. Of the
            # engine's own formats this one keeps bytes that are no text.
            log_config=LogConfig(type="local", config={"max-size": "1p"}),
            **options,
            **self._resources(host),
        )

    def _networking(self, host: HostPlan, network: Network | None) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.machine == "host.docker.internal":
            options["extra_hosts"] = {"host.docker.internal": "host-gateway"}
        if network is not None:
            alias = self._client.api.create_endpoint_config(aliases=[host.name])
            options |= {"network": network.name, "networking_config": {network.name: alias}}
        return options

    def _resources(self, host: HostPlan) -> dict[str, Any]:
        memory = host.limits.memory_bytes if host.limits else self._info["MemTotal"]
        # /dev/shm is where data loaders pass arrays; Docker's 64 MB are too few.
        options: dict[str, Any] = {"shm_size": memory // 2}
        if host.limits:
            options |= {"nano_cpus": round(min(host.limits.cpus, self._info["NCPU"]) * 1e9)}
            options |= {"mem_limit": memory, "memswap_limit": memory}
        if host.gpus and "nvidia" in self._info.get("Runtimes", {}):
            options["device_requests"] = [DeviceRequest(count=-1, capabilities=[["gpu"]])]
        return options

    def running(self) -> Mapping[str, Sequence[Host]]:
        mine: dict[str, Any] = {"label": f"{HOME_LABEL}={self._home}"}
        found: dict[str, list[Container]] = {}
        for container in self._client.containers.list(all=True, ignore_removed=True, filters=mine):
            found.setdefault(container.labels[PLAN_LABEL], []).append(container)
        kept = [volume.attrs["Labels"] for volume in self._client.volumes.list(filters=mine)]
        kept += [network.attrs["Labels"] for network in self._client.networks.list(filters=mine)]
        return {name: _hosts(found.get(name, [])) for name in {*found, *(labels[PLAN_LABEL] for labels in kept)}}

    def remove(self, plan_name: str) -> None:
        deadline = time.monotonic() + REMOVE_SECONDS
        while not patiently(lambda: self._is_removed(plan_name)):
            if time.monotonic() > deadline:
                raise EngineAwayError(f"the engine did not remove {plan_name} within {REMOVE_SECONDS:g} s")
            time.sleep(AGAIN_SECONDS)

    def _is_removed(self, plan_name: str) -> bool:
        """Remove what there is; False if something could not be removed yet."""
        mine: dict[str, Any] = {"label": [f"{HOME_LABEL}={self._home}", f"{PLAN_LABEL}={plan_name}"]}
        removals: list[Callable[[], None]] = [
            *(
                functools.partial(container.remove, force=True, v=True)
                for container in self._client.containers.list(all=True, ignore_removed=True, filters=mine)
            ),
            *(volume.remove for volume in self._client.volumes.list(filters=mine)),
            *(network.remove for network in self._client.networks.list(filters=mine)),
        ]
        return all(list(map(_is_gone, removals)))  # a list, so that each is tried

    def close(self) -> None:
        with contextlib.suppress(APIError, *AWAY):  # plans that go on still need it
            self._client.networks.get(self._served).remove()
        self._client.close()

    def _labels(self, plan: Plan) -> dict[str, str]:
        count = len(plan.hosts) * (2 if self._guards.are_needed(plan) else 1)
        return {HOME_LABEL: self._home, PLAN_LABEL: plan.name, CONTAINERS_LABEL: str(count)}

    def _container_name(self, plan: Plan, part: str) -> str:
        return f"microjobs-{self._home}-{plan.name.replace('/', '-')}-{part}"


def _remedy(image: str) -> str:
    """What to do about a missing image: `microjobs build` makes those of this repository only."""
    registry, _, name = image.partition("@")[0].rpartition("/")
    job, _, tag = name.partition(":")
    if registry == os.environ.get("REGISTRY", "microjobs") and (JOBS / job / "image.yml").is_file():
        return f"run `microjobs build {job}{' --variant cuda' if tag.endswith('-cuda') else ''}`"
    return (
        f"build it (`docker build --tag {image} FOLDER`), log in to its registry and run `docker pull {image}`, "
        "or give the name of an image of this machine with --image-alias"
    )


def _hosts(containers: Sequence[Container]) -> Sequence[Host]:
    """The hosts of a plan; none if not all have been started, or cannot be reached any more."""
    started = [container for container in containers if container.status != "created"]
    if not all(container.labels[CONTAINERS_LABEL] == str(len(started)) for container in containers):
        return ()
    guards = {container.labels[GUARD_LABEL]: container for container in started if GUARD_LABEL in container.labels}
    hosts = [container for container in started if HOST_LABEL in container.labels]
    if any(guards[host.labels[HOST_LABEL]].status != "running" for host in hosts if guards and host.labels[PORT_LABEL]):
        return ()
    found = [DockerHost(host, _way(host, guards.get(host.labels[HOST_LABEL]))) for host in hosts]
    return tuple(sorted(found, key=lambda host: host.name))


def _way(host: Container, guard: Container | None) -> Connect:
    """How a host's port is reached."""
    if guard is not None:
        return Door(guard).connect
    return functools.partial(unguarded, host, int(host.labels[PORT_LABEL] or 0))


def _serves(plan: Plan) -> bool:
    return any(host.port for host in plan.hosts)


def _subnet(network: Network | None) -> str:
    if network is None:
        return ""
    return next(str(config["Subnet"]) for config in network.attrs["IPAM"]["Config"] if "." in config["Subnet"])


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _is_gone(removal: Callable[[], None]) -> bool:
    try:
        removal()
    except NotFound:
        return True
    except APIError as error:
        if error.status_code not in (HTTPStatus.CONFLICT, HTTPStatus.FORBIDDEN):
            raise
        return False  # it is being removed already, or is in use by what is: a network, which is forbidden then
    return True


def _digest(image: Mapping[str, Any]) -> str:
    """An image's digest in its registry; of one that was only built here, its own id."""
    known = [reference.partition("@")[2] for reference in image.get("RepoDigests") or ()]
    return str(next(filter(None, known), image["Id"]))
