"""Runtime `docker`: a container a host, by the engine's API.

Everything that a host writes stays in its container and the engine's volumes, and is copied out by the API. So no file
of root's appears in the caller's folders, and removing the container removes all.
"""

import contextlib
import functools
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import DeviceRequest, LogConfig
from requests.exceptions import RequestException

from microjobs.contract import DEFAULT_ROOT
from orchestrator.local.home import Home
from orchestrator.local.runtimes.archives import packed, unpack
from orchestrator.local.runtimes.base import CannotRunError, Exit, Host, HostPlan, Input, Line, Plan
from orchestrator.local.runtimes.inputs import Overlays

logger = logging.getLogger(__name__)

HOME_LABEL = "org.microjobs.home"
PLAN_LABEL = "org.microjobs.plan"
HOST_LABEL = "org.microjobs.host"
PORT_LABEL = "org.microjobs.port"

ENGINE_BACK_SECONDS = 120
"""How long a host is waited for when the engine does not answer: it may be restarting."""

T = TypeVar("T")


class DockerHost:
    """A container."""

    def __init__(self, container: Container, port: int | None) -> None:
        self.name: str = container.labels[HOST_LABEL]
        self._container = container
        self._port = port

    def lines(self, after: float = 0.0) -> Iterator[Line]:
        last = after
        while True:
            try:
                for line in self._stream(last):
                    last = line.time
                    yield line
            except (RequestException, DockerException) as error:
                logger.info("the log of %s broke off: %s", self.name, error)
            if not self._is_there_and_running():
                return

    def _stream(self, after: float) -> Iterator[Line]:
        frames = self._container.logs(stream=True, follow=True, timestamps=True, since=after or None)
        rest, begun = b"", 0.0
        for frame in frames:
            stamp, _, text = frame.partition(b" ")
            if not rest:
                begun = _seconds(stamp)
            rest += text
            if rest.endswith(b"\n"):  # a long line comes in several frames
                if begun > after:
                    yield Line(begun, rest[:-1])
                rest = b""
        if rest and begun > after:
            yield Line(begun, rest)

    def _is_there_and_running(self) -> bool:
        state = _patiently(self._state)
        return state is not None and state["Running"]

    def _state(self) -> Mapping[str, Any]:
        self._container.reload()
        state: Mapping[str, Any] = self._container.attrs["State"]
        return state

    def wait(self) -> Exit:
        answer = _patiently(lambda: self._container.wait(timeout=None))
        state = _patiently(self._state)
        if answer is None or state is None:
            return Exit(137, "its container was removed from outside, or the engine went away")
        if state["OOMKilled"]:
            return Exit(int(answer["StatusCode"]), "it ran out of memory")
        return Exit(int(answer["StatusCode"]), state["Error"] or None)

    def stop(self, grace: float) -> None:
        with contextlib.suppress(NotFound):
            self._container.stop(timeout=round(grace))

    def copy(self, path: str, to: Path) -> bool:
        try:
            chunks, _ = self._container.get_archive(path)
        except NotFound:
            return False
        unpack(chunks, to)
        return True

    def address(self) -> tuple[str, int]:
        self._container.reload()
        settings = self._container.attrs["NetworkSettings"]
        if published := settings["Ports"].get(f"{self._port}/tcp"):
            return published[0]["HostIp"], int(published[0]["HostPort"])
        # A network without a way out has no published ports; on Linux this machine reaches it directly.
        return next(network["IPAddress"] for network in settings["Networks"].values()), self._port or 0


class DockerRuntime:
    """Runs plans on a Docker engine."""

    name = "docker"

    def __init__(self, home: Home, client: docker.DockerClient | None = None) -> None:
        self._client = client or docker.from_env(max_pool_size=100)
        self._home = hashlib.sha256(str(home.root.resolve()).encode()).hexdigest()[:8]
        self._info: Mapping[str, Any] = self._client.info()
        self._overlays = Overlays(self._client)

    @functools.cached_property
    def machine(self) -> str:
        """The bridge's own address; where the engine is in a virtual machine, the name that it gives to this one."""
        if "Docker Desktop" in self._info["OperatingSystem"]:
            return "host.docker.internal"
        bridge = self._client.networks.get("bridge").attrs["IPAM"]["Config"][0]
        return str(bridge.get("Gateway") or bridge["Subnet"].rsplit(".", 1)[0] + ".1")

    def prepare(self, image: str) -> None:
        try:
            self._client.images.get(image)
        except ImageNotFound:
            logger.info("pulling %s", image)
            try:
                self._client.images.pull(image)
            except (APIError, RequestException) as error:
                reason = str(getattr(error, "explanation", None) or error).strip()
                raise CannotRunError(
                    f"image {image} is not here and cannot be pulled ({reason}): "
                    "build it (`microjobs build`), pull it, or give its local name with --image-alias"
                ) from error
        except APIError as error:
            raise CannotRunError(f"image name {image!r} is not valid: {error.explanation}") from error

    def start(self, plan: Plan) -> Sequence[Host]:
        try:
            network = self._network(plan)
            with ThreadPoolExecutor(len(plan.hosts)) as pool:
                return list(pool.map(lambda host: self._start_host(plan, host, network), plan.hosts))
        except (APIError, RequestException) as error:
            self.remove(plan.name)
            reason = getattr(error, "explanation", None) or error
            raise CannotRunError(f"the engine could not start {plan.name}: {reason}") from error
        except BaseException:
            self.remove(plan.name)
            raise

    def _network(self, plan: Plan) -> str | None:
        """A network of the job's own for several hosts, or for one that must not reach out; it costs 0.3 s."""
        if len(plan.hosts) == 1 and not plan.isolated:
            return None
        name = self._container_name(plan, "network")
        self._client.networks.create(name, internal=plan.isolated, labels=self._labels(plan), check_duplicate=True)
        return name

    def _start_host(self, plan: Plan, host: HostPlan, network: str | None) -> DockerHost:
        overlaid, copied = self._overlays.divide(host.inputs)
        container = self._create(plan, host, network, overlaid)
        try:
            with packed([(host.files, DEFAULT_ROOT), *((item.source, item.path) for item in copied)]) as archive:
                container.put_archive("/", archive)
            container.start()
        except APIError as error:
            if not (overlaid and self._overlays.refused(error)):
                raise
            container.remove(force=True, v=True)
            return self._start_host(plan, host, network)
        return DockerHost(container, host.port)

    def _create(self, plan: Plan, host: HostPlan, network: str | None, overlaid: Sequence[Input]) -> Container:
        labels = {**self._labels(plan), HOST_LABEL: host.name, PORT_LABEL: str(host.port or "")}
        volumes = {self._overlays.volume(item.source, labels): {"bind": item.path, "mode": "rw"} for item in overlaid}
        return self._client.containers.create(
            host.image,
            command=None if host.arguments is None else list(host.arguments),
            entrypoint=None if host.entrypoint is None else list(host.entrypoint),
            name=self._container_name(plan, host.name),
            hostname=host.name,
            environment=dict(host.environment),
            labels=labels,
            volumes=volumes,
            # Kept whole whatever the engine's default is: it is read again after a restart of the server.
            log_config=LogConfig(type=LogConfig.types.JSON),
            **self._networking(host, network),
            **self._resources(host),
        )

    def _networking(self, host: HostPlan, network: str | None) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if host.port is not None:
            options["ports"] = {f"{host.port}/tcp": ("127.0.0.1", None)}
        if self.machine == "host.docker.internal":
            options["extra_hosts"] = {"host.docker.internal": "host-gateway"}
        if network is not None:
            alias = self._client.api.create_endpoint_config(aliases=[host.name])
            options |= {"network": network, "networking_config": {network: alias}}
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
        found: dict[str, list[Host]] = {}
        for container in self._client.containers.list(all=True, filters={"label": f"{HOME_LABEL}={self._home}"}):
            port = container.labels[PORT_LABEL]
            host = DockerHost(container, int(port) if port else None)
            found.setdefault(container.labels[PLAN_LABEL], []).append(host)
        return {name: sorted(hosts, key=lambda host: host.name) for name, hosts in found.items()}

    def remove(self, plan_name: str) -> None:
        mine: dict[str, Any] = {"label": [f"{HOME_LABEL}={self._home}", f"{PLAN_LABEL}={plan_name}"]}
        for container in self._client.containers.list(all=True, filters=mine):
            with contextlib.suppress(NotFound):
                container.remove(force=True, v=True)
        for volume in self._client.volumes.list(filters=mine):
            with contextlib.suppress(NotFound):
                volume.remove()
        for network in self._client.networks.list(filters=mine):
            with contextlib.suppress(NotFound):
                network.remove()

    def close(self) -> None:
        self._client.close()

    def _labels(self, plan: Plan) -> dict[str, str]:
        return {HOME_LABEL: self._home, PLAN_LABEL: plan.name}

    def _container_name(self, plan: Plan, part: str) -> str:
        return f"microjobs-{self._home}-{plan.name.replace('/', '-')}-{part}"


def _seconds(stamp: bytes) -> float:
    """Docker's time stamp, which has nanoseconds; a float of today's seconds keeps the microseconds."""
    text = stamp.decode().removesuffix("Z")
    whole, _, fraction = text.partition(".")
    return datetime.fromisoformat(whole + "+00:00").timestamp() + float(f"0.{fraction or 0}")


def _patiently(ask: Callable[[], T]) -> T | None:
    """Ask the engine, again if it is away for a while; None if the container is gone or the engine does not return."""
    deadline = time.monotonic() + ENGINE_BACK_SECONDS
    while True:
        try:
            return ask()
        except NotFound:
            return None
        except (RequestException, DockerException) as error:
            if time.monotonic() > deadline:
                logger.warning("the engine does not answer: %s", error)
                return None
            time.sleep(0.5)
