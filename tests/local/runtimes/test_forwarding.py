"""Tests of connections from containers to the server through the engine, as on engines that are on another machine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from microjobs_orchestrator.local.guard.settings import SERVER_PORT
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.runtimes.base import HostPlan, Plan
from microjobs_orchestrator.local.runtimes.docker.runtime import DockerRuntime
from tests.conftest import make_image_name

pytestmark = pytest.mark.engine

FETCH_PROGRAM = f"""
import urllib.request
try:
    print(urllib.request.urlopen('http://127.0.0.1:{SERVER_PORT}/', timeout=20).read().decode(), flush=True)
except OSError as error:
    print('refused', flush=True)
"""
# A carrier of the first server may take one more connection before it notices that this server has ended. Therefore,
# the script repeats the second fetch if the connection is refused.
FETCH_TWICE_SCRIPT = f"""
python3 -c "{FETCH_PROGRAM}"
while ! [ -e /tmp/continue ]; do sleep 0.1; done
for attempt in 1 2 3; do
  answer=$(python3 -c "{FETCH_PROGRAM}")
  [ "$answer" = refused ] || break
done
echo $answer
"""


@contextmanager
def serve(answer: bytes) -> Iterator[int]:
    """Answer each request with the same text; yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Do nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_port
        server.shutdown()


def make_plan(folder: Path, script: str, *names: str, isolated: bool = False) -> Plan:
    command = {"entrypoint": ("/bin/sh", "-c"), "arguments": (script,)}
    hosts = tuple(HostPlan(name, make_image_name("serve"), folder, **command) for name in names)  # type: ignore[arg-type]
    return Plan(f"job/{len(names)}", hosts, isolated=isolated)


def test_hosts_connect_to_the_server_also_after_its_restart(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    with serve(b"first") as first_port, serve(b"second") as second_port:
        assert docker_runtime.forward(first_port) == SERVER_PORT
        hosts = docker_runtime.start(make_plan(tmp_path, FETCH_TWICE_SCRIPT, "algo-1", "algo-2"))
        assert [next(host.lines()).text for host in hosts] == [b"first", b"first"]
        docker_runtime.close()
        restarted_runtime = DockerRuntime(Home(tmp_path / "home"))
        restarted_runtime.forward(second_port)
        (found_hosts,) = restarted_runtime.find_hosts().values()
        for host in found_hosts:
            host._container.exec_run(["touch", "/tmp/continue"])  # type: ignore[attr-defined]
        assert [[line.text for line in host.lines()] for host in found_hosts] == [[b"first", b"second"]] * 2
        restarted_runtime.close()


def test_isolated_hosts_do_not_connect_to_the_server(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    with serve(b"answer") as port:
        docker_runtime.forward(port)
        (host,) = docker_runtime.start(make_plan(tmp_path, f'python3 -c "{FETCH_PROGRAM}"', "algo-1", isolated=True))
        assert [line.text for line in host.lines()] == [b"refused"]
