"""Tests of a guard's relay without a container."""

import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from microjobs_orchestrator.local import guard
from microjobs_orchestrator.local.guard import proof, relay
from microjobs_orchestrator.local.guard.relay import Relay
from microjobs_orchestrator.local.guard.settings import RELAY_PORT, VARIABLE_PREFIX, Settings
from microjobs_orchestrator.local.resources.models.client import MAX_IDLE_CONNECTIONS
from microjobs_orchestrator.local.runtimes.base import WrongPortError
from microjobs_orchestrator.local.runtimes.docker import guards
from microjobs_orchestrator.local.runtimes.docker.guards import GuardedPort

SECRET = "the secret"  # noqa: S105
ConnectionHandler = Callable[[socket.socket], None]
Address = tuple[str, int]


@contextmanager
def run_listener(handle: ConnectionHandler) -> Iterator[Address]:
    """Listen on a port, and call a function with each connection. Yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=run_handler, args=(connection,), daemon=True).start()

        def run_handler(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                handle(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()


@contextmanager
def start_relay(handle: ConnectionHandler) -> Iterator[Address]:
    """Run a relay, and a host that calls a function with each connection. Yield the address of the relay."""
    with run_listener(handle) as (_, port), socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=Relay(SECRET, port).serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()


def connect_with_secret(address: Address, secret: str = SECRET) -> socket.socket:
    connection = socket.create_connection(address, 5)
    try:
        proof.prove_to_guard(connection, secret)
    except BaseException:
        connection.close()
        raise
    return connection


def send_and_end(connection: socket.socket, content: bytes) -> None:
    """Send the content, and then the end of the stream."""
    connection.sendall(content)
    connection.shutdown(socket.SHUT_WR)


def read(connection: socket.socket) -> bytes:
    """Receive until the end of the connection."""
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def echo(connection: socket.socket) -> None:
    connection.sendall(read(connection))


def test_caller_with_the_secret_reaches_the_host() -> None:
    content = bytes(range(256)) * 40_000
    with start_relay(echo) as address, connect_with_secret(address) as connection:
        threading.Thread(target=send_and_end, args=(connection, content)).start()
        assert read(connection) == content


def make_guarded_port(address: str, published_address: Address) -> GuardedPort:
    settings = {
        "Ports": {f"{RELAY_PORT}/tcp": [{"HostIp": published_address[0], "HostPort": str(published_address[1])}]},
        "Networks": {"n": {"IPAddress": address}},
    }
    attrs = {"NetworkSettings": settings, "Config": {"Env": [f"{VARIABLE_PREFIX}SECRET={SECRET}"]}}
    return GuardedPort(cast("Any", SimpleNamespace(reload=lambda: None, attrs=attrs)))


def test_published_port_is_used_if_the_address_of_the_container_is_unreachable() -> None:
    """Engines in a virtual machine have networks that this machine does not reach."""
    with start_relay(echo) as address:
        guarded_port = make_guarded_port("127.0.0.99", address)
        for _ in range(2):
            with guarded_port.connect(5) as connection:
                send_and_end(connection, b"x")
                assert read(connection) == b"x"


def test_only_the_first_connection_has_a_short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later connections use the full timeout, because a machine under load may need longer to connect."""
    timeouts = []

    def connect(_: str, __: int, timeout: float) -> socket.socket:
        timeouts.append(timeout)
        return socket.create_connection(address, timeout)

    monkeypatch.setattr(guards, "_connect", connect)
    with start_relay(echo) as address:
        guarded_port = make_guarded_port("192.0.2.1", ("192.0.2.2", 1))
        for _ in range(2):
            with guarded_port.connect(5) as connection:
                assert connection.gettimeout() == 5
    assert timeouts == [guards.DIRECT_TIMEOUT, 5]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_a_guard_suffices_for_tunnels() -> None:
    """Each tunnelled connection is a process in the guard, and the client keeps idle connections open."""
    script = "import microjobs_orchestrator.local.guard.tunnel; print(open('/proc/self/smaps_rollup').read())"
    command = [sys.executable, "-E", "-s", "-S", "-c", script]
    process = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(guard.__file__).parents[3])
    sizes = dict(line.split(":") for line in process.stdout.splitlines() if line.endswith("kB"))
    private_bytes = sum(int(sizes[name].split()[0]) << 10 for name in ("Private_Clean", "Private_Dirty"))
    assert private_bytes > 1 << 20
    assert private_bytes * MAX_IDLE_CONNECTIONS < guards.MEMORY_BYTES


@pytest.mark.parametrize(
    "attack",
    [
        b"GET /ping HTTP/1.1\r\n\r\n",
        proof.MAGIC[:-1] + b"x",
        proof.MAGIC + bytes(proof.NONCE_BYTES + proof.PROOF_BYTES),
        b"\x16\x03\x01",
    ],
    ids=["HTTP", "almost the protocol", "no proof", "TLS"],
)
def test_caller_without_the_secret_does_not_reach_the_host(attack: bytes) -> None:
    connections: list[socket.socket] = []
    with start_relay(connections.append) as address, socket.create_connection(address, 5) as stranger:
        stranger.sendall(attack)
        with suppress(ConnectionResetError):
            assert relay.FORBIDDEN_RESPONSE in read(stranger)
    assert connections == []


def test_proof_is_valid_for_one_connection() -> None:
    connections: list[socket.socket] = []
    with start_relay(connections.append) as address:
        nonce = bytes(proof.NONCE_BYTES)
        proofs = []
        for _ in range(2):
            with socket.create_connection(address, 5) as connection:
                connection.sendall(proof.MAGIC + nonce)
                guard_nonce = proof.receive(connection, proof.NONCE_BYTES)
                proof.receive(connection, proof.PROOF_BYTES)
                proofs.append(proof.make_proof(SECRET, b"caller", nonce, guard_nonce))
                if len(proofs) == 2:
                    connection.sendall(proofs[0])
                    assert read(connection) == relay.FORBIDDEN_RESPONSE
    assert connections == []


def test_proof_of_the_guard_is_refused_from_a_caller() -> None:
    """If the guard accepted its own proof, a caller without the secret could send this proof back."""
    with start_relay(echo) as address, socket.create_connection(address, 5) as stranger:
        stranger.sendall(proof.MAGIC + bytes(proof.NONCE_BYTES))
        proof.receive(stranger, proof.NONCE_BYTES)
        stranger.sendall(proof.receive(stranger, proof.PROOF_BYTES))
        assert read(stranger) == relay.FORBIDDEN_RESPONSE


def test_impostor_on_the_port_receives_no_secret_and_no_request() -> None:
    received = []

    def answer_without_the_secret(connection: socket.socket) -> None:
        received.append(proof.receive(connection, len(proof.MAGIC) + proof.NONCE_BYTES))
        connection.sendall(bytes(proof.NONCE_BYTES + proof.PROOF_BYTES))
        received.append(read(connection))

    with run_listener(answer_without_the_secret) as address:
        with pytest.raises(proof.StrangerError, match="without the guard's secret"):
            connect_with_secret(address)
        deadline = time.monotonic() + 5
        while len(received) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert (len(received), received[1], SECRET.encode() in received[0]) == (2, b"", False)


def test_host_that_does_not_listen_refuses_the_connection() -> None:
    with socket.socket() as silent_socket, socket.create_server(("127.0.0.1", 0)) as listener:
        silent_socket.bind(("127.0.0.1", 0))
        threading.Thread(
            target=Relay(SECRET, silent_socket.getsockname()[1]).serve, args=(listener,), daemon=True
        ).start()
        with pytest.raises(ConnectionRefusedError):
            connect_with_secret(listener.getsockname())


@pytest.mark.parametrize(("is_on_default_port", "error"), [(True, WrongPortError), (False, proof.NotListeningError)])
def test_host_on_the_default_port_is_detected(
    monkeypatch: pytest.MonkeyPatch, *, is_on_default_port: bool, error: type[Exception]
) -> None:
    with (
        socket.socket() as silent_socket,
        run_listener(echo) as (_, port),
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        silent_socket.bind(("127.0.0.1", 0))
        own_port = silent_socket.getsockname()[1]
        monkeypatch.setattr(relay, "DEFAULT_PORT", port if is_on_default_port else own_port)
        threading.Thread(target=Relay(SECRET, own_port).serve, args=(listener,), daemon=True).start()
        addresses, connect = [], guards._connect

        def record(address: str, port: int, timeout: float) -> socket.socket:
            addresses.append(address)
            return connect(address, port, timeout)

        monkeypatch.setattr(guards, "_connect", record)
        guarded_port = make_guarded_port("127.0.0.2", listener.getsockname())
        for _ in range(2):
            with pytest.raises(error):
                guarded_port.connect(5)
    # the unreachable address is tried only once, because each attempt takes time
    assert addresses == ["127.0.0.2", "127.0.0.1", "127.0.0.1"]


def test_silent_callers_do_not_block_others() -> None:
    with start_relay(echo) as address:
        strangers = [socket.create_connection(address, 5) for _ in range(2 * relay.MAX_UNPROVEN_CALLERS)]
        with connect_with_secret(address) as connection:
            send_and_end(connection, b"x")
            assert read(connection) == b"x"
        for stranger in strangers:
            stranger.close()


def test_response_that_ends_with_the_connection_is_complete() -> None:
    with (
        start_relay(lambda connection: connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nall of it")) as address,
        connect_with_secret(address) as connection,
    ):
        assert read(connection) == b"HTTP/1.0 200 OK\r\n\r\nall of it"


def test_broken_response_resets_the_connection() -> None:
    def reset(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nsome of it")
        time.sleep(0.2)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with start_relay(reset) as address, connect_with_secret(address) as connection, pytest.raises(ConnectionResetError):
        read(connection)


def test_early_response_reaches_the_caller() -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\n\r\n")

    with start_relay(refuse) as address, connect_with_secret(address) as connection:
        with suppress(ConnectionError):
            connection.sendall(b"x" * 10_000_000)
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_settings_are_converted_to_environment_variables() -> None:
    settings = Settings(SECRET, target=8080, isolated=True, peers="172.18.0.1/16")
    assert Settings.from_environment(settings.to_environment()) == settings
    assert Settings.from_environment(Settings().to_environment()) == Settings()
