"""Tests of a guard's firewall in network namespaces that the test makes, without an engine."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict

import pytest

from microjobs_orchestrator.local.guard.settings import RELAY_PORT, Settings

OTHER_PORT = 7001
TIMEOUT_SECONDS = 0.7
"""Seconds until a connection counts as dropped."""

PEER_PROGRAM = f"""
import json, socket, sys
TIMEOUT_SECONDS = {TIMEOUT_SECONDS}
listener = socket.create_server(("0.0.0.0", {OTHER_PORT}))
def connects(port):
    try:
        socket.create_connection(("10.0.0.1", port), TIMEOUT_SECONDS).close()
    except OSError:
        return False
    return True
for line in sys.stdin:
    print(json.dumps([connects(port) for port in json.loads(line)]), flush=True)
"""
"""A program on another machine of the network. It reads lists of ports, and prints which ports accept a connection."""

HOST_PROGRAM = f"""
import json, socket, subprocess, sys
from microjobs_orchestrator.local.guard import firewall
from microjobs_orchestrator.local.guard.settings import Settings
command = ["unshare", "--net", sys.executable, "-uc", sys.argv[2]]
with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
    def run(text):
        subprocess.run(text.split(), check=True)
    def connects(address):
        try:
            socket.create_connection((address, {OTHER_PORT}), {TIMEOUT_SECONDS}).close()
        except OSError:
            return False
        return True
    ip_of_peer = f"nsenter --net --target {{peer.pid}} ip"
    print("[]", file=peer.stdin, flush=True)
    assert peer.stdout.readline() == "[]\\n"  # the peer's program runs, so its namespace exists
    run(f"ip link add host type veth peer name peer netns {{peer.pid}}")
    for text in ("ip addr add 10.0.0.1/24 dev host", "ip link set host up", "ip link set lo up",
                 f"{{ip_of_peer}} addr add 10.0.0.2/24 dev peer", f"{{ip_of_peer}} link set peer up"):
        run(text)
    listeners = [socket.create_server(("0.0.0.0", port)) for port in ({RELAY_PORT}, {OTHER_PORT})]
    while not connects("10.0.0.2"):  # the link takes a moment
        pass
    firewall.install(firewall.make_chains(Settings(**json.loads(sys.argv[1]))))
    print(json.dumps([{RELAY_PORT}, {OTHER_PORT}]), file=peer.stdin, flush=True)
    relay, other = json.loads(peer.stdout.readline())
    print(json.dumps({{"relay": relay, "other": other, "out": connects("10.0.0.2"), "self": connects("10.0.0.1")}}))
    peer.stdin.close()
"""
"""The program of a guarded host. It prints which of these connections are possible:

- `relay`: from the peer to RELAY_PORT of the host;
- `other`: from the peer to OTHER_PORT of the host;
- `out`: from the host to OTHER_PORT of the peer;
- `self`: from the host to its own OTHER_PORT.
"""


def can_make_namespaces() -> bool:
    has_tools = all(shutil.which(tool) for tool in ("unshare", "nsenter", "ip"))
    return has_tools and subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_make_namespaces(), reason="network namespaces cannot be made")
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # `target` is the port on which the host serves. The firewall then allows connections to RELAY_PORT, where the
        # guard's relay listens.
        (Settings(target=8080), {"relay", "out", "self"}),
        (Settings(), {"out", "self"}),
        (Settings(target=8080, isolated=True), {"relay", "self"}),
        # `peers` is `<address of the gateway>/<prefix length>`. The network of the peers follows from both.
        (Settings(isolated=True, peers="10.0.0.0/24"), {"relay", "other", "out", "self"}),
        (Settings(isolated=True, peers="10.0.0.9/24"), {"relay", "other", "out", "self"}),
        # The test's peer is the gateway here. It may not connect: on Podman, the gateway is the server's machine.
        (Settings(isolated=True, peers="10.0.0.2/24"), {"self"}),
        (Settings(isolated=True, peers="10.0.0.128/25"), {"self"}),
    ],
    ids=[
        "serves",
        "only connects out",
        "serves isolated",
        "peers",
        "peers with a gateway",
        "peer is the gateway",
        "other peers",
    ],
)
def test_firewall_allows_only_the_connections_of_its_settings(settings: Settings, expected: set[str]) -> None:
    command = [
        "unshare",
        "--map-root-user",
        "--net",
        sys.executable,
        "-c",
        HOST_PROGRAM,
        json.dumps(asdict(settings)),
        PEER_PROGRAM,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert result.returncode == 0, result.stderr
    assert {name for name, is_possible in json.loads(result.stdout).items() if is_possible} == expected
