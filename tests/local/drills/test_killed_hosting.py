"""Test that clients of an endpoint survive `kill -9` of its container and of the server, with open response streams."""

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
from tests.conftest import image_from
from tests.local.clients import SHELL, LocalServer, share_environments, wait_until
from tests.local.drills.drill import find_free_port
from tests.local.drills.leaks import list_objects
from tests.local.machine import environments, list_containers

NAME = "killed"
GROUP = f"/aws/sagemaker/Endpoints/{NAME}"
CALLERS, STREAMS = 3, 3
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
"""A container that prints each request, returns its body, and answers `stream` with an endless response stream."""


@dataclass
class Callers:
    """Clients that send one request after the other, never twice the same, until they are stopped."""

    local: LocalServer
    answered: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def run(self) -> Iterator[None]:
        with ThreadPoolExecutor(CALLERS) as pool:
            callers = [pool.submit(self._call, f"caller-{number}") for number in range(CALLERS)]
            try:
                yield
            finally:
                self._stopped.set()
            for caller in callers:
                caller.result()

    def _call(self, name: str) -> None:
        runtime = self.local.client("sagemaker-runtime")
        for number in itertools.count():
            if self._stopped.wait(0.02):
                return
            body = f"{name}-{number}"
            try:
                response = runtime.invoke_endpoint(EndpointName=NAME, Body=body)
                content = response["Body"].read().decode()
            except (BotoCoreError, ClientError, HTTPError):
                self.failed.append(body)
                continue
            assert content == body
            self.answered.append(body)

    def wait_for_answers(self) -> None:
        """Wait until each client may have received new responses."""
        enough = len(self.answered) + 10 * CALLERS
        wait_until(lambda: len(self.answered), lambda count: count > enough)


def read_stream(local: LocalServer, has_begun: threading.Event) -> Exception:
    """Read an endless response stream; return the error that ends it."""
    runtime = local.client("sagemaker-runtime")
    events = runtime.invoke_endpoint_with_response_stream(EndpointName=NAME, Body=STREAM_BODY)["Body"]
    try:
        with closing(events):
            for event in events:
                assert event["PayloadPart"]["Bytes"].startswith(b"again")
                has_begun.set()
    except (EventStreamError, HTTPError, BotoCoreError) as error:
        return error
    raise AssertionError("the stream ended without an error")


@contextmanager
def open_streams(local: LocalServer) -> Iterator[Sequence["Future[Exception]"]]:
    """Yield the results of readers of response streams, after each reader has received a part."""
    begun = [threading.Event() for _ in range(STREAMS)]
    with ThreadPoolExecutor(STREAMS) as pool:
        readers = [pool.submit(read_stream, local, has_begun) for has_begun in begun]
        wait_until(
            lambda: all(event.is_set() for event in begun) or any(reader.done() for reader in readers), bool, seconds=30
        )
        yield readers


def deploy(local: LocalServer, image: str) -> None:
    role = local.address.role_arn
    local.sagemaker.create_model(ModelName=NAME, PrimaryContainer={"Image": image}, ExecutionRoleArn=role)
    variant = {"VariantName": "main", "ModelName": NAME, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    local.sagemaker.create_endpoint_config(EndpointConfigName=NAME, ProductionVariants=[variant])
    local.sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)
    waiter = local.sagemaker.get_waiter("endpoint_in_service")
    waiter.wait(EndpointName=NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


def find_container(local: LocalServer) -> Any:
    """Return the container of the endpoint, of several containers of the home."""
    (container,) = [item for item in list_containers(local.home) if f"-{NAME}-main-" in str(item.name)]
    return container


def check_requests(local: LocalServer, callers: Callers) -> None:
    """Check that the containers received each answered request once, and no request twice."""

    def count_received() -> Counter[str]:
        lines = [line for stream in local.log_streams(GROUP).values() for line in stream]
        return Counter(line.removeprefix("received ") for line in lines if line.startswith("received "))

    received = wait_until(count_received, lambda counts: counts.keys() >= set(callers.answered))
    del received[STREAM_BODY.decode()]
    assert [body for body, count in received.items() if count > 1] == []
    assert received.keys() <= {*callers.answered, *callers.failed}


def check_nothing_is_left(home: Home) -> None:
    with closing(docker.from_env()) as engine:
        found = list_objects(engine, home)
    assert not found.containers | found.networks | found.volumes | found.folders | found.incoming, found
    assert environments(str(home.root)) == {}


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_killed_container_and_server_lose_no_answer(tmp_path: Path) -> None:
    home, config = Home(tmp_path / "home"), Config(port=find_free_port(), runtime="docker")
    share_environments(home)
    with image_from(SHELL, f"ENTRYPOINT {json.dumps(['python3', '-c', PROGRAM])}") as image:
        local = LocalServer(home, control.start(home, config))
        try:
            deploy(local, image)
            callers = Callers(local)
            with callers.run():
                check_killed_container(local, callers)
                check_killed_server(local, callers, config)
            check_requests(local, callers)
            local.sagemaker.delete_endpoint(EndpointName=NAME)
        finally:
            control.stop(home)
        check_nothing_is_left(home)


def check_killed_container(local: LocalServer, callers: Callers) -> None:
    callers.wait_for_answers()
    killed = find_container(local)
    with open_streams(local) as readers:
        killed.kill("SIGKILL")
        errors = [reader.result(30) for reader in readers]
    assert {type(error) for error in errors} == {EventStreamError}
    assert all("StreamBroken" in str(error) for error in errors), errors
    callers.wait_for_answers()
    assert find_container(local).id != killed.id


def check_killed_server(local: LocalServer, callers: Callers, config: Config) -> None:
    before = find_container(local)
    with open_streams(local) as readers:
        os.kill(local.address.pid, signal.SIGKILL)
        errors = [reader.result(30) for reader in readers]
    assert not any(isinstance(error, EventStreamError) for error in errors), errors  # there is no server to send one
    time.sleep(0.5)  # callers without a server
    assert control.start(local.home, config).url == local.address.url
    callers.wait_for_answers()
    assert find_container(local).id == before.id
