"""Attacks over the network: on serving containers, and from isolated containers."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from docker.models.containers import Container

from microjobs_orchestrator.local.guard.settings import RELAY_PORT
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.resources.models.client import Client
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host, HostPlan, Line, Plan
from microjobs_orchestrator.local.runtimes.docker.labels import GUARD_LABEL, PLAN_LABEL
from microjobs_orchestrator.local.runtimes.docker.runtime import DockerRuntime
from tests.conftest import make_image_name
from tests.local.machine import list_containers, open_engine
from tests.polling import wait_until

pytestmark = pytest.mark.engine

FORBIDDEN_RESPONSE = b"HTTP/1.1 403 "

SERVER_PROGRAM = """
import http.server, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "6"); self.end_headers()
        self.wfile.write(b"secret")
    def log_message(self, *_):
        print("asked", self.path, flush=True)
for port in (8081, 40000):  # an administrator's port, and one that the system chose
    threading.Thread(target=http.server.ThreadingHTTPServer(("", port), Handler).serve_forever, daemon=True).start()
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""

ATTACK_PROGRAM = """
import json, socket, sys
def attempt(address, port, device):
    with socket.socket() as attacker:
        attacker.settimeout(0.5)
        try:
            if device:
                attacker.setsockopt(socket.SOL_SOCKET, 25, b"eth0")  # SO_BINDTODEVICE: skips the routing table
            attacker.connect((address, port))
            attacker.sendall(b"GET /ping HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
            return attacker.recv(100).decode("latin-1")
        except OSError as error:
            return type(error).__name__
def send_datagram(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
        try:
            attacker.setsockopt(socket.SOL_SOCKET, 25, b"eth0")
            attacker.sendto(b"udp", (address, port))
        except OSError:
            pass
def list_network_addresses():
    lines = [line.split() for line in open("/proc/net/route").read().splitlines()[1:]]
    networks = [bytes.fromhex(line[1])[::-1] for line in lines if line[1] != "00000000"]
    gateways = [bytes.fromhex(line[2])[::-1] for line in lines if line[2] != "00000000"]
    return [socket.inet_ntoa(address) for address in [*gateways, *(net[:3] + bytes([net[3] + 1]) for net in networks)]]
def resolve_names():
    for name in ("host.docker.internal", "gateway.docker.internal", "localhost.localdomain", socket.gethostname()):
        try:
            yield from socket.gethostbyname_ex(name)[2]
        except OSError:
            pass
addresses, ports = json.loads(sys.argv[1]), json.loads(sys.argv[2])
targets = sorted({*addresses, *list_network_addresses(), *resolve_names()} - {"127.0.0.1"})
results = {f"{a}:{p}/{d}": attempt(a, p, d) for a in targets for p in ports for d in (False, True)}
for address in targets:
    send_datagram(address, ports[0])
print(json.dumps(results), flush=True)
"""


def make_serving_plan(tmp_path: Path, name: str, *, isolated: bool) -> Plan:
    (tmp_path / "files").mkdir(exist_ok=True)
    host = HostPlan(
        "algo-1",
        make_image_name("serve"),
        tmp_path / "files",
        entrypoint=("python3", "-c"),
        arguments=(SERVER_PROGRAM,),
        port=8080,
    )
    return Plan(f"endpoint/{name}", (host,), isolated)


def request_path(host: Host) -> bytes:
    body = BytesIO()
    with closing(Client(host.connect)) as client:
        wait_until(client.is_healthy, bool)
        client.request("GET", "/x", timeout=5, into=body)
    return body.getvalue()


def find_container(home: Home, plan: Plan, *, is_guard: bool = False) -> Container:
    containers = [item for item in list_containers(home) if item.labels[PLAN_LABEL] == plan.name]
    (container,) = [item for item in containers if (GUARD_LABEL in item.labels) is is_guard]
    return container


def has_route(container: Container) -> bool:
    """Return whether this machine has an address in a network of a container. With a rootless engine, it has none."""
    networks = container.attrs["NetworkSettings"]["Networks"].values()
    return any(map(is_own_address, filter(None, (network["Gateway"] for network in networks))))


def is_own_address(address: str) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind((address, 0))
        return True
    return False


def request_as_stranger(address: tuple[str, int]) -> bytes:
    """Send a request as another program of this machine; return the response, or nothing without a connection."""
    try:
        with socket.create_connection(address, 1) as attacker:
            attacker.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            return attacker.recv(100)
    except OSError:
        return b""


@pytest.mark.parametrize("isolated", [False, True])
def test_only_the_server_reaches_a_serving_container(
    tmp_path: Path, docker_runtime: DockerRuntime, isolated: bool
) -> None:
    plan, other_plan = (make_serving_plan(tmp_path, name, isolated=isolated) for name in ("victim", "other"))
    (host,), _ = docker_runtime.start(plan), docker_runtime.start(other_plan)
    assert request_path(host) == b"secret"
    guard = find_container(Home(tmp_path / "home"), plan, is_guard=True)
    networks = guard.attrs["NetworkSettings"]["Networks"].values()  # on Podman, the guard also has the default network
    addresses, ports = [network["IPAddress"] for network in networks], (8080, 8081, 40000, RELAY_PORT)
    (published_port,) = guard.attrs["NetworkSettings"]["Ports"][f"{RELAY_PORT}/tcp"]
    assert published_port["HostIp"] == "127.0.0.1"
    assert request_as_stranger(("127.0.0.1", int(published_port["HostPort"]))).startswith(FORBIDDEN_RESPONSE)
    for address in addresses if has_route(guard) else ():
        assert [request_as_stranger((address, port))[:13] for port in ports] == [b"", b"", b"", FORBIDDEN_RESPONSE]
    command = ["python3", "-c", ATTACK_PROGRAM, json.dumps(addresses), json.dumps(ports)]
    with open_engine() as engine:
        stranger_output = engine.containers.run(make_image_name("serve"), entrypoint=command, command=[], remove=True)
    neighbour_output = attack_from(find_container(Home(tmp_path / "home"), other_plan), command)
    for output in (stranger_output, neighbour_output):
        results = json.loads(output)
        assert not [
            target for target, answer in results.items() if target.startswith(tuple(addresses)) and "200" in answer
        ]
    assert [line.text for line in stop_and_read_log(docker_runtime, plan)] == [b"asked /ping", b"asked /x"]


def attack_from(container: Container, command: list[str]) -> bytes:
    output = container.exec_run(command).output
    assert isinstance(output, bytes)
    return output


def stop_and_read_log(docker_runtime: DockerRuntime, plan: Plan) -> Iterator[Line]:
    (host,) = docker_runtime.find_hosts()[plan.name]
    host.stop(0)
    return host.lines()


def test_isolated_model_reaches_nothing(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    plan = make_serving_plan(tmp_path, "jailed", isolated=True)
    (host,) = docker_runtime.start(plan)
    assert request_path(host) == b"secret"
    with run_listener() as (port, used_protocols):
        command = ["python3", "-c", ATTACK_PROGRAM, json.dumps(list_own_addresses()), json.dumps([port])]
        results = json.loads(attack_from(find_container(Home(tmp_path / "home"), plan), command))
        assert {target: answer for target, answer in results.items() if not answer.endswith("Error")} == {}
        assert (len(results) > 4, used_protocols) == (True, [])


def test_isolated_hosts_reach_each_other_and_nothing_else(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    with run_listener() as (port, used_protocols):
        attack_command = ["python3", "-c", ATTACK_PROGRAM, json.dumps(list_own_addresses()), json.dumps([port])]
        plan = make_attack_plan(tmp_path, attack_command, isolated=True)
        hosts = docker_runtime.start(plan)
        outputs = [[line.text.decode() for line in host.lines()] for host in hosts]
        assert [host.wait().code for host in hosts] == [0, 0], outputs
        assert [lines[0] for lines in outputs] == ["algo-2 said hello", "algo-1 said hello"]
        for lines in outputs:
            results = json.loads(lines[-1])
            assert {target: answer for target, answer in results.items() if not answer.endswith("Error")} == {}
            assert len(results) > 4
        assert used_protocols == []


def test_attack_succeeds_without_isolation(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    """Check that the attacks of the other tests can succeed."""
    with run_listener() as (port, used_protocols):
        attack_command = ["python3", "-c", ATTACK_PROGRAM, json.dumps(list_own_addresses()), json.dumps([port])]
        for host in docker_runtime.start(make_attack_plan(tmp_path, attack_command, isolated=False)):
            assert "served" in json.loads(list(host.lines())[-1].text).values()
        wait_until(lambda: set(used_protocols), lambda protocols: protocols == {"tcp", "udp"})


def make_attack_plan(tmp_path: Path, attack_command: list[str], *, isolated: bool) -> Plan:
    """Return the plan of two hosts that connect to each other, and then run the attack."""
    script = f"""
import socket, subprocess, sys, time
me, peer = sys.argv[1:]
with socket.create_server(("", 5000)) as server:
    for _ in range(100):
        try:
            connection = socket.create_connection((peer, 5000), 1)
            break
        except OSError:
            time.sleep(0.1)
    connection.sendall(me.encode())
    other, _ = server.accept()
    print(other.recv(100).decode(), "said hello", flush=True)
    sys.exit(subprocess.call({attack_command!r}))
"""
    (tmp_path / "files").mkdir(exist_ok=True)
    names = ("algo-1", "algo-2")
    first_host = HostPlan(names[0], make_image_name("serve"), tmp_path / "files", entrypoint=("python3", "-c"))
    hosts = [replace(first_host, name=me, arguments=(script, me, peer)) for me, peer in (names, names[::-1])]
    return Plan("training-job/talk", tuple(hosts), isolated)


def list_own_addresses() -> list[str]:
    """Return the addresses of this machine in the engine's networks, and the address of its default route."""
    with open_engine() as client:
        gateways = [
            config.get("Gateway", "") for net in client.networks.list() for config in net.attrs["IPAM"]["Config"] or []
        ]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return sorted({*gateways, probe.getsockname()[0]} - {""})


@contextmanager
def run_listener() -> Iterator[tuple[int, list[str]]]:
    """Listen on one port for TCP and UDP, on all addresses of this machine. Yield the port and the used protocols."""
    used_protocols: list[str] = []
    with socket.create_server(("", 0)) as stream, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        port = stream.getsockname()[1]
        datagrams.bind(("", port))

        def greet() -> None:
            connection, _ = stream.accept()
            used_protocols.append("tcp")
            connection.sendall(b"served")
            connection.close()

        def receive() -> None:
            datagrams.recv(100)
            used_protocols.append("udp")

        for serve in (greet, receive):
            threading.Thread(target=repeat, args=(serve,), daemon=True).start()
        yield port, used_protocols


def repeat(function: Callable[[], None]) -> None:
    try:
        while True:
            function()
    except OSError:
        return


def test_host_without_a_guard_is_not_found(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    """A new server could not reach such a host, so it starts the host again."""
    plan = make_serving_plan(tmp_path, "lost", isolated=False)
    (host,) = docker_runtime.start(plan)
    assert len(docker_runtime.find_hosts()[plan.name]) == 1
    find_container(Home(tmp_path / "home"), plan, is_guard=True).kill()
    assert wait_until(lambda: docker_runtime.find_hosts()[plan.name], lambda hosts: not hosts) == ()
    with pytest.raises(OSError):  # noqa: PT011  refused, or reset by the engine's proxy
        host.connect(1)


def test_missing_image_of_guards_is_reported(tmp_path: Path) -> None:
    with closing(DockerRuntime(Home(tmp_path / "home"), guard_image="registry.invalid/no:image")) as runtime:
        with pytest.raises(CannotRunError, match=r"guard_image in .local. of microjobs.toml, or MICROJOBS_GUARD_IMAGE"):
            runtime.start(make_serving_plan(tmp_path, "a", isolated=False))
        assert runtime.find_hosts() == {}


def test_guards_can_be_disabled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plan = make_serving_plan(tmp_path, "open", isolated=True)
    with closing(DockerRuntime(Home(tmp_path / "home"), guard_image="none")) as runtime:
        assert "any local user and container can use endpoints" in caplog.text
        try:
            (host,) = runtime.start(plan)
            assert request_path(host) == b"secret"
        finally:
            runtime.remove(plan.name)
