"""Runs jobs in their images like SageMaker: with arguments, an environment, and the contract's root as a mount."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import docker
import pytest
from docker.errors import DockerException, ImageNotFound
from docker.models.containers import Container
from docker.types import Mount
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from microjobs.contract import DEFAULT_ROOT, Layout, read_failure
from microjobs_orchestrator import docker_engine
from tests.conftest import make_image_name

SESSION_LABEL = "org.microjobs.test-session"
SESSION = uuid.uuid4().hex


@dataclass(frozen=True)
class EndedJob:
    """The end of a job: exit code, log, failure message, and the job's folders."""

    exit_code: int
    log: str
    failure: str | None
    layout: Layout

    def warnings(self) -> list[str]:
        """Return the log lines at level WARNING or above."""
        levels = ("WARNING", "ERROR", "CRITICAL", "FATAL", "Traceback", "Warning:")
        return [line for line in self.log.splitlines() if any(level in line for level in levels)]


@dataclass
class Job:
    """A job that has started."""

    container: Container
    layout: Layout

    @property
    def log(self) -> str:
        return self.container.logs().decode(errors="replace")

    @property
    def exit_code(self) -> int:
        self.container.reload()
        return int((self.container.attrs or {})["State"]["ExitCode"])

    @property
    def is_running(self) -> bool:
        self.container.reload()
        return bool((self.container.attrs or {})["State"]["Running"])

    def wait_for_log(self, text: str, timeout: float = 120) -> None:
        self.wait_until(lambda: text in self.log, f"{text!r} in its log", timeout)

    def wait_until(self, condition: Callable[[], bool], expectation: str, timeout: float = 120) -> None:
        """Wait until the condition is true. The messages of failures contain `expectation`."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert self.is_running, f"the job ended with {self.exit_code} before {expectation}:\n{self.log[-3000:]}"
            assert time.monotonic() < deadline, f"no {expectation} within {timeout:g} s:\n{self.log[-3000:]}"
            time.sleep(0.1)

    def wait_until_signals_are_handled(self) -> None:
        """Wait until process 1 has forked the job. Before that, it has no handlers, and the kernel drops signals."""
        self.wait_until(lambda: len(self.container.top()["Processes"] or []) > 1, "its start")

    def wait(self, timeout: int = 600) -> EndedJob:
        exit_code = int(self.container.wait(timeout=timeout)["StatusCode"])
        return EndedJob(exit_code, self.log, read_failure(self.layout), self.layout)

    def stop(self, timeout: int) -> float:
        """Send SIGTERM, and SIGKILL after `timeout` seconds, like SageMaker. Return the seconds until the end."""
        start = time.monotonic()
        self.container.stop(timeout=timeout)
        return time.monotonic() - start

    def execute(self, *command: str) -> tuple[int, str]:
        exit_code, output = self.container.exec_run(list(command))
        assert isinstance(output, bytes)
        return exit_code or 0, output.decode(errors="replace")


class StartJob(Protocol):
    """Starts a job in its image. The options, such as `mounts`, are those of docker-py."""

    def __call__(
        self,
        job: str,
        arguments: list[str],
        root: Path,
        *,
        environment: Mapping[str, str] = ...,
        **options: Any,
    ) -> Job: ...


class RunJob(Protocol):
    """Runs a job in its image to its end. `exit_code` is the code that the job must end with."""

    def __call__(
        self,
        job: str,
        arguments: list[str],
        root: Path,
        *,
        environment: Mapping[str, str] = ...,
        exit_code: int = 0,
        **options: Any,
    ) -> EndedJob: ...


class RunPython(Protocol):
    """Runs a Python script in the image of a job."""

    def __call__(self, job: str, script: Path, root: Path) -> EndedJob: ...


@dataclass
class Starter:
    """Starts containers. `close` removes them."""

    containers: list[DockerContainer] = field(default_factory=list)

    def __call__(
        self,
        job: str,
        arguments: list[str],
        root: Path,
        *,
        environment: Mapping[str, str] | None = None,
        hostname: str = "algo-1",
        network: Network | None = None,
        **options: Any,
    ) -> Job:
        container = (
            DockerContainer(make_image_name(job))
            .with_command(arguments)
            .with_envs(**(environment or {}))
            .with_volume_mapping(str(root), DEFAULT_ROOT, "rw")
            .with_kwargs(labels={SESSION_LABEL: SESSION}, hostname=hostname, **options)
        )
        if network is not None:
            container = container.with_network(network).with_network_aliases(hostname)
        container.start()
        self.containers.append(container)
        return Job(container.get_wrapped_container(), Layout(root))

    def close(self) -> None:
        for container in self.containers:
            container.stop(force=True, delete_volume=True)


@pytest.fixture(scope="session", autouse=True)
def remove_leftovers() -> Iterator[None]:
    """Remove the containers and networks of interrupted tests by their label.

    Testcontainers could also do this, but needs an image, which may not be available.
    """
    yield
    try:
        client = docker_engine.connect()
    except DockerException:  # without an engine, no test has started a container
        return
    for container in client.containers.list(
        all=True, ignore_removed=True, filters={"label": f"{SESSION_LABEL}={SESSION}"}
    ):
        container.remove(force=True)
    for network in client.networks.list(filters={"label": f"{SESSION_LABEL}={SESSION}"}):
        network.remove()
    client.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder to mount as the contract's root."""
    folder = tmp_path / "ml"
    folder.mkdir()
    return folder


@pytest.fixture
def start_job() -> Iterator[StartJob]:
    starter = Starter()
    yield starter
    starter.close()


@pytest.fixture
def run_job(start_job: StartJob) -> RunJob:
    def run_to_end(
        job: str,
        arguments: list[str],
        root: Path,
        *,
        environment: Mapping[str, str] | None = None,
        exit_code: int = 0,
        **options: Any,
    ) -> EndedJob:
        run = start_job(job, arguments, root, environment=environment or {}, **options).wait()
        assert run.exit_code == exit_code, f"{job} ended with {run.exit_code}, not {exit_code}:\n{run.log[-4000:]}"
        if exit_code == 0:  # a successful job logs no warning
            assert run.warnings() == []
        return run

    return run_to_end


@pytest.fixture
def network() -> Iterator[Network]:
    """A network for the hosts of one job."""
    with Network(docker_network_kw={"labels": {SESSION_LABEL: SESSION}}) as created:
        yield created


@pytest.fixture
def run_python(run_job: RunJob) -> RunPython:
    """A function that runs a script inside an image, which contains the job's packages."""

    def run(job: str, script: Path, root: Path) -> EndedJob:
        mounts = [Mount("/script.py", str(script), "bind", read_only=True)]
        return run_job(job, ["/script.py"], root, entrypoint="python", mounts=mounts)

    return run


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="session")
def get_image_attributes(engine: docker.DockerClient) -> Callable[[str], dict[str, Any]]:
    def attributes(job: str) -> dict[str, Any]:
        try:
            return dict(engine.images.get(make_image_name(job)).attrs)
        except ImageNotFound:
            pytest.fail(f"{make_image_name(job)} is not built: make build/{job}")

    return attributes
