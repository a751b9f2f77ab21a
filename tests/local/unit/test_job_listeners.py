"""The address that hosts of jobs use to connect to the server, whether or not this machine has that address."""

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from microjobs_orchestrator.local import server
from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.listening import listen_for_jobs
from microjobs_orchestrator.local.runtimes.base import Runtime
from tests.local.security.stub import StubRuntime

ABSENT = "192.0.2.1"
"""An address for documentation, which no machine has."""
LOOPBACK_NEIGHBOUR = "127.0.0.2"


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


FORWARDED = 61412


def runtime_at(address: str, *, gets_address_later: bool = False, forwards: bool = True) -> Runtime:
    parts = {"machine_address": address, "gets_address_later": gets_address_later}
    return cast("Runtime", SimpleNamespace(**parts, forward=lambda _: FORWARDED if forwards else None))


@pytest.mark.skipif(sys.platform != "linux", reason="IP_FREEBIND is an option of Linux")
@pytest.mark.parametrize(
    ("gets_address_later", "authority"),
    [(True, f"{ABSENT}:0"), (False, f"127.0.0.1:{FORWARDED}")],
    ids=["Podman", "Docker"],
)
def test_only_podman_listens_on_an_absent_address(cleanup: ExitStack, gets_address_later: bool, authority: str) -> None:
    runtime = runtime_at(ABSENT, gets_address_later=gets_address_later)
    access = listen_for_jobs(runtime, Config(), 0, cleanup)
    assert (access.authority, len(access.listeners), access.is_reachable) == (authority, 1, True)


@pytest.mark.parametrize("config", [Config(), Config(all_addresses=True)])
def test_engine_forwards_if_this_machine_has_no_address_for_jobs(cleanup: ExitStack, config: Config) -> None:
    access = listen_for_jobs(runtime_at("", gets_address_later=True), config, 0, cleanup)
    assert (access.authority, access.listeners[0].bind_addr[0]) == (f"127.0.0.1:{FORWARDED}", "127.0.0.1")


def test_warning_says_that_jobs_cannot_connect(cleanup: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    assert not listen_for_jobs(runtime_at("", forwards=False), Config(), 0, cleanup).is_reachable
    assert "jobs cannot connect to this server" in caplog.text


def test_server_on_all_addresses_finds_out_whether_jobs_reach_it(cleanup: ExitStack) -> None:
    runtime, config = runtime_at(LOOPBACK_NEIGHBOUR), Config(all_addresses=True)
    with socket.create_server(("127.0.0.1", 0)) as only_local, socket.create_server(("", 0)) as everywhere:
        ports = [listener.getsockname()[1] for listener in (only_local, everywhere)]
        found = [listen_for_jobs(runtime, config, port, cleanup).authority for port in ports]
    assert found == [f"127.0.0.1:{FORWARDED}", f"{LOOPBACK_NEIGHBOUR}:{ports[1]}"]


@pytest.fixture
def start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cleanup: ExitStack
) -> Callable[[str, int | None], tuple[int, Context]]:
    """Start a server whose runtime has an address and forwards; return its port and its context."""
    contexts = []
    create_interceptors = server._create_interceptors

    def record_context(context: Context, *arguments: Any) -> Any:
        contexts.append(context)
        return create_interceptors(context, *arguments)

    def start_at(address: str, forwarded_port: int | None) -> tuple[int, Context]:
        home, runtime = Home(tmp_path), StubRuntime()
        home.create()
        cleanup.callback(runtime.close)
        runtime.machine_address = address
        monkeypatch.setattr(runtime, "forward", lambda _: forwarded_port)
        port = server._start(home, Config(port=0), runtime, cleanup)
        return port, contexts[0]

    monkeypatch.setattr(server, "_create_interceptors", record_context)
    return start_at


@pytest.mark.parametrize("address", ["127.0.0.1", ABSENT])
def test_hosts_use_the_package_cache_if_they_reach_it(start: Any, address: str) -> None:
    _, context = start(address, None)
    variables = context.make_package_variables()
    assert context.make_access_variables()["AWS_ENDPOINT_URL"].startswith(f"http://{address}:")
    assert ("PIP_INDEX_URL" in variables, "UV_DEFAULT_INDEX" in variables) == (address != ABSENT,) * 2


def test_clients_get_another_address_than_hosts_whose_connections_are_forwarded(start: Any) -> None:
    port, context = start("", FORWARDED)
    assert context.make_access_variables()["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{FORWARDED}"
    assert context.settings.client_url == f"http://127.0.0.1:{port}"
