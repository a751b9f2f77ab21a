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
from microjobs_orchestrator.local.runtimes.base import Runtime
from microjobs_orchestrator.local.server_addresses import listen_for_jobs
from tests.local.security.stub import StubRuntime

ABSENT_ADDRESS = "192.0.2.1"
"""An address for documentation, which no machine has."""
LOOPBACK_NEIGHBOUR = "127.0.0.2"


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


FORWARDED_PORT = 61412


def make_runtime(
    address: str, *, machine_address_exists_only_while_hosts_run: bool = False, forwards: bool = True
) -> Runtime:
    attributes = {
        "machine_address": address,
        "machine_address_exists_only_while_hosts_run": machine_address_exists_only_while_hosts_run,
    }
    return cast("Runtime", SimpleNamespace(**attributes, forward=lambda _: FORWARDED_PORT if forwards else None))


@pytest.mark.skipif(sys.platform != "linux", reason="IP_FREEBIND is an option of Linux")
@pytest.mark.parametrize(
    ("machine_address_exists_only_while_hosts_run", "authority"),
    [(True, f"{ABSENT_ADDRESS}:0"), (False, f"127.0.0.1:{FORWARDED_PORT}")],
    ids=["Podman", "Docker"],
)
def test_server_listens_on_an_absent_address_only_for_podman(
    cleanup: ExitStack, machine_address_exists_only_while_hosts_run: bool, authority: str
) -> None:
    runtime = make_runtime(
        ABSENT_ADDRESS, machine_address_exists_only_while_hosts_run=machine_address_exists_only_while_hosts_run
    )
    access = listen_for_jobs(runtime, Config(), port=0, cleanup=cleanup)
    assert (access.authority, len(access.listeners), access.is_reachable) == (authority, 1, True)


@pytest.mark.parametrize("config", [Config(), Config(all_addresses=True)])
def test_engine_forwards_if_this_machine_has_no_address_for_jobs(cleanup: ExitStack, config: Config) -> None:
    access = listen_for_jobs(
        make_runtime("", machine_address_exists_only_while_hosts_run=True), config, port=0, cleanup=cleanup
    )
    assert (access.authority, access.listeners[0].bind_addr[0]) == (f"127.0.0.1:{FORWARDED_PORT}", "127.0.0.1")


def test_warning_says_that_jobs_cannot_connect(cleanup: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    assert not listen_for_jobs(make_runtime("", forwards=False), Config(), port=0, cleanup=cleanup).is_reachable
    assert "jobs cannot connect to this server" in caplog.text


def test_server_on_all_addresses_finds_out_whether_jobs_reach_it(cleanup: ExitStack) -> None:
    runtime, config = make_runtime(LOOPBACK_NEIGHBOUR), Config(all_addresses=True)
    with (
        socket.create_server(("127.0.0.1", 0)) as loopback_socket,
        socket.create_server(("", 0)) as all_addresses_socket,
    ):
        # Only the socket on all addresses accepts connections to the address of the runtime's machine.
        ports = [listener.getsockname()[1] for listener in (loopback_socket, all_addresses_socket)]
        authorities = [listen_for_jobs(runtime, config, port, cleanup).authority for port in ports]
    assert authorities == [f"127.0.0.1:{FORWARDED_PORT}", f"{LOOPBACK_NEIGHBOUR}:{ports[1]}"]


@pytest.fixture
def start_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cleanup: ExitStack
) -> Callable[..., tuple[int, Context]]:
    """A function that starts a server, and returns the server's port and context. The arguments are the address of the
    runtime's machine, and the port that the runtime forwards."""
    contexts = []
    create_interceptors = server._create_interceptors

    def record_context(context: Context, *arguments: Any) -> Any:
        contexts.append(context)
        return create_interceptors(context, *arguments)

    def start(address: str, forwarded_port: int | None) -> tuple[int, Context]:
        home, runtime = Home(tmp_path), StubRuntime()
        home.create()
        cleanup.callback(runtime.close)
        runtime.machine_address = address
        monkeypatch.setattr(runtime, "forward", lambda _: forwarded_port)
        port = server._start(home, Config(port=0), runtime, cleanup)
        return port, contexts[0]

    monkeypatch.setattr(server, "_create_interceptors", record_context)
    return start


@pytest.mark.parametrize("address", ["127.0.0.1", ABSENT_ADDRESS])
def test_hosts_use_the_package_cache_if_they_reach_it(start_server: Any, address: str) -> None:
    _, context = start_server(address, forwarded_port=None)
    variables = context.make_package_variables()
    assert context.make_access_variables()["AWS_ENDPOINT_URL"].startswith(f"http://{address}:")
    assert ("PIP_INDEX_URL" in variables, "UV_DEFAULT_INDEX" in variables) == (address != ABSENT_ADDRESS,) * 2


def test_clients_get_another_address_than_hosts_whose_connections_are_forwarded(start_server: Any) -> None:
    port, context = start_server("", forwarded_port=FORWARDED_PORT)
    assert context.make_access_variables()["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{FORWARDED_PORT}"
    assert context.settings.client_url == f"http://127.0.0.1:{port}"
