"""Fixtures: servers that most tests share, and a Docker runtime without a server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from microjobs_orchestrator.local import state
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.runtimes.docker.runtime import DockerRuntime
from tests.local.clients import LocalServer, run_server

state.RESERVE_BYTES = 64 << 10
"""The tests reserve less space than the server: thousands of tests open a store in their own process, and each would
write 8 MB."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """Run a server whose jobs run in containers."""
    with run_server(tmp_path_factory.mktemp("local"), runtime="docker") as server:
        yield server


@pytest.fixture(scope="session")
def process_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """Run a server whose jobs run as processes."""
    with run_server(tmp_path_factory.mktemp("processes"), runtime="process") as server:
        yield server


@pytest.fixture(params=["process_server", pytest.param("server", marks=pytest.mark.engine)])
def any_runtime_server(request: pytest.FixtureRequest) -> LocalServer:
    """A server of one runtime. The test runs once per runtime; its jobs use `clients.ROOT` as the contract's root."""
    server: LocalServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def docker_runtime(tmp_path: Path) -> Iterator[DockerRuntime]:
    """Return a Docker runtime for the home `tmp_path / "home"`."""
    runtime = DockerRuntime(Home(tmp_path / "home"))
    yield runtime
    for plan_name in runtime.find_hosts():
        runtime.remove(plan_name)
    runtime.close()
