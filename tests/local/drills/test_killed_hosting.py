"""Test of an endpoint whose container or server is killed: no request runs twice, and streams end with an error."""

import itertools
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest
from botocore.exceptions import BotoCoreError, ClientError, EventStreamError
from urllib3.exceptions import HTTPError

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.home import Home
from tests.conftest import build_image_from_job
from tests.local.clients import SHELL_IMAGE, LocalServer, create_home_with_shared_environments
from tests.local.drills.leaks import list_traces
from tests.local.machine import list_containers, read_variables_by_process
from tests.polling import wait_until
from tests.ports import find_free_port

NAME = "killed"
LOG_GROUP = f"/aws/sagemaker/Endpoints/{NAME}"
CLIENT_COUNT, STREAM_COUNT = 3, 3
STREAM_BODY = b"stream"
PROGRAM = """
import http.server, os, signal, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        os.write(1, b"received %s\\n" % body)  # in one write: lines of `print` mix if several threads print
        self.stream() if body == b"stream" else self.answer(body)

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"5\\r\\nagain\\r\\n")
                time.sleep(0.02)
        except OSError:
            self.close_connection = True
            print("closed", flush=True)

    def log_message(self, *_):
        pass

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
"""The program of a container. It prints each request and returns its body; the answer to `stream` is endless."""


@dataclass
class Clients:
    """Clients that send one request after the other until they are stopped. All requests are different."""

    server: LocalServer
    answered_bodies: list[str] = field(default_factory=list)
    failed_bodies: list[str] = field(default_factory=list)
    _stop_event: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def run(self) -> Iterator[None]:
        with ThreadPoolExecutor(CLIENT_COUNT) as pool:
            clients = [pool.submit(self._call, f"client-{number}") for number in range(CLIENT_COUNT)]
            try:
                yield
            finally:
                self._stop_event.set()
            for client in clients:
                client.result()

    def _call(self, name: str) -> None:
        runtime = self.server.client("sagemaker-runtime")
        for number in itertools.count():
            if self._stop_event.wait(0.02):
                return
            body = f"{name}-{number}"
            try:
                response = runtime.invoke_endpoint(EndpointName=NAME, Body=body)
                content = response["Body"].read().decode()
            except (BotoCoreError, ClientError, HTTPError):
                self.failed_bodies.append(body)
                continue
            assert content == body
            self.answered_bodies.append(body)

    def wait_for_answers(self) -> None:
        """Wait until the clients have received more than ten new responses each, on average."""
        minimum_count = len(self.answered_bodies) + 10 * CLIENT_COUNT
        wait_until(lambda: len(self.answered_bodies), lambda count: count > minimum_count)


def read_stream(server: LocalServer, begin_event: threading.Event) -> Exception:
    """Read an endless response stream; return the error that ends it."""
    runtime = server.client("sagemaker-runtime")
    events = runtime.invoke_endpoint_with_response_stream(EndpointName=NAME, Body=STREAM_BODY)["Body"]
    try:
        with closing(events):
            for event in events:
                assert event["PayloadPart"]["Bytes"].startswith(b"again")
                begin_event.set()
    except (EventStreamError, HTTPError, BotoCoreError) as error:
        return error
    raise AssertionError("the stream ended without an error")


@contextmanager
def open_streams(server: LocalServer) -> Iterator[Sequence["Future[Exception]"]]:
    """Yield the results of readers of response streams, after each reader has received a part."""
    begin_events = [threading.Event() for _ in range(STREAM_COUNT)]
    with ThreadPoolExecutor(STREAM_COUNT) as pool:
        readers = [pool.submit(read_stream, server, begin_event) for begin_event in begin_events]
        wait_until(
            lambda: all(event.is_set() for event in begin_events) or any(reader.done() for reader in readers),
            bool,
            seconds=30,
        )
        yield readers


def deploy_endpoint(server: LocalServer, image: str) -> None:
    role = server.address.role_arn
    server.sagemaker.create_model(ModelName=NAME, PrimaryContainer={"Image": image}, ExecutionRoleArn=role)
    create_config(server, NAME, count=1)
    server.sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)
    waiter = server.sagemaker.get_waiter("endpoint_in_service")
    waiter.wait(EndpointName=NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


def create_config(server: LocalServer, name: str, count: int) -> None:
    variant = {"VariantName": "main", "ModelName": NAME, "InstanceType": "ml.m5.large", "InitialInstanceCount": count}
    server.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])


def find_container(server: LocalServer) -> Any:
    """Return the endpoint's container among the containers of the home."""
    (container,) = [item for item in list_containers(server.home) if f"-{NAME}-main-" in str(item.name)]
    return container


def check_requests(server: LocalServer, clients: Clients) -> None:
    """Check that the containers received each answered request once, and no request twice."""

    def count_requests() -> Counter[str]:
        lines = [line for stream in server.read_log_streams(LOG_GROUP).values() for line in stream]
        return Counter(line.removeprefix("received ") for line in lines if line.startswith("received "))

    request_counts = wait_until(count_requests, lambda counts: counts.keys() >= set(clients.answered_bodies))
    del request_counts[STREAM_BODY.decode()]
    assert [body for body, count in request_counts.items() if count > 1] == []
    assert request_counts.keys() <= {*clients.answered_bodies, *clients.failed_bodies}


def check_nothing_is_left(home: Home) -> None:
    with closing(docker.from_env()) as engine:
        traces = list_traces(engine, home)
    assert not traces.containers | traces.networks | traces.volumes | traces.folders | traces.incoming_files, traces
    assert read_variables_by_process(str(home.root)) == {}


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_killed_container_and_server_lose_no_answer(tmp_path: Path) -> None:
    home, config = Home(tmp_path / "home"), Config(port=find_free_port(), runtime="docker", deployment_speed=60)
    create_home_with_shared_environments(home)
    with build_image_from_job(SHELL_IMAGE, f"ENTRYPOINT {json.dumps(['python3', '-c', PROGRAM])}") as image:
        server = LocalServer(home, control.start(home, config))
        try:
            deploy_endpoint(server, image)
            clients = Clients(server)
            with clients.run():
                kill_container(server, clients)
                server = kill_and_restart_server(server, clients, config)
                kill_server_during_update(server, clients, config)
            check_requests(server, clients)
            server.sagemaker.delete_endpoint(EndpointName=NAME)
        finally:
            control.stop(home)
        check_nothing_is_left(home)


def kill_container(server: LocalServer, clients: Clients) -> None:
    clients.wait_for_answers()
    killed_container = find_container(server)
    with open_streams(server) as readers:
        killed_container.kill("SIGKILL")
        errors = [reader.result(30) for reader in readers]
    assert {type(error) for error in errors} == {EventStreamError}
    assert all("StreamBroken" in str(error) for error in errors), errors
    clients.wait_for_answers()
    assert find_container(server).id != killed_container.id


def kill_and_restart_server(server: LocalServer, clients: Clients, config: Config) -> LocalServer:
    """Kill the server; return the next server, which has the same URL."""
    old_container = find_container(server)
    with open_streams(server) as readers:
        os.kill(server.address.pid, signal.SIGKILL)
        errors = [reader.result(30) for reader in readers]
    # without a server, nothing sends an error event
    assert not any(isinstance(error, EventStreamError) for error in errors), errors
    time.sleep(0.5)  # for this time, the clients have no server
    next_server = LocalServer(server.home, control.start(server.home, config))
    assert next_server.address.url == server.address.url
    clients.wait_for_answers()
    assert find_container(server).id == old_container.id
    return next_server


def kill_server_during_update(server: LocalServer, clients: Clients, config: Config) -> None:
    """Kill the server in the first step of an update, in which both configurations respond."""
    size = {"Type": "CAPACITY_PERCENT", "Value": 50}
    # with `deployment_speed`, the interval takes 5 s
    routing = {"Type": "CANARY", "CanarySize": size, "WaitIntervalInSeconds": 300}
    create_config(server, "updated", count=2)
    server.sagemaker.update_endpoint(
        EndpointName=NAME,
        EndpointConfigName="updated",
        DeploymentConfig={"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}},
    )

    def describe() -> dict[str, Any]:
        description: dict[str, Any] = server.sagemaker.describe_endpoint(EndpointName=NAME)
        return description

    wait_until(describe, lambda description: description["ProductionVariants"][0]["CurrentWeight"] == 0.5)
    clients.wait_for_answers()
    os.kill(server.address.pid, signal.SIGKILL)
    control.start(server.home, config)
    description = wait_until(describe, lambda description: description["EndpointStatus"] == "InService", seconds=60)
    assert (description["EndpointConfigName"], description["ProductionVariants"][0]["CurrentInstanceCount"]) == (
        "updated",
        2,
    )
    clients.wait_for_answers()
