"""InvokeEndpointWithResponseStream, with boto3 and the server's real listener."""

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.eventstream import EventStreamError
from botocore.exceptions import ClientError

from microjobs_orchestrator.local.gateway.listener import Server
from microjobs_orchestrator.local.resources.endpoints import deployer, streams
from microjobs_orchestrator.local.resources.endpoints.endpoint import Endpoint
from microjobs_orchestrator.local.services import sagemaker_runtime
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import ImageBehaviour, Reply
from tests.local.jobs.test_endpoints_invocations import Invoker
from tests.polling import wait_until

OpenStream = Callable[..., dict[str, Any]]


class ResponseSource:
    """The chunks of a response. A test adds them while the client reads; `b""` ends the response."""

    def __init__(self) -> None:
        self.chunks: queue.Queue[bytes] = queue.Queue()

    def put(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.chunks.put(chunk)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.chunks.get, b"")


@pytest.fixture
def address(parts: ServerParts, model: ImageBehaviour) -> Iterator[tuple[str, int]]:  # noqa: ARG001  endpoint `e` serves it
    """The host and the port of a server with endpoint `e`."""
    parts.deploy()
    server = Server(("127.0.0.1", 0), server_name="localhost")
    server.wsgi_app = Invoker(parts).gateway
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server.bind_addr
    server.stop()
    thread.join()


@pytest.fixture
def client(address: tuple[str, int]) -> Any:
    """A client of SageMaker Runtime for the server."""
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=f"http://127.0.0.1:{address[1]}",
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",  # noqa: S106
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def source(model: ImageBehaviour) -> ResponseSource:
    """The source of the response of endpoint `e`."""
    chunks = ResponseSource()
    headers = {"Content-Type": "text/plain", "X-Amzn-SageMaker-Custom-Attributes": "seen"}
    model.invoke = lambda _: Reply(headers=headers, chunks=chunks)
    return chunks


@pytest.fixture
def open_stream(client: Any) -> Iterator[OpenStream]:
    """A function that invokes endpoint `e` and returns the response. The streams are closed after the test."""
    with ExitStack() as stack:

        def open_stream(**members: Any) -> dict[str, Any]:
            response: dict[str, Any] = client.invoke_endpoint_with_response_stream(
                EndpointName="e", Body=b"x", **members
            )
            stack.callback(response["Body"].close)
            return response

        yield open_stream


def read_part(events: Iterator[Any]) -> bytes:
    part: bytes = next(events)["PayloadPart"]["Bytes"]
    return part


def test_client_receives_each_part_before_the_container_has_finished(
    open_stream: OpenStream, source: ResponseSource
) -> None:
    source.put(b"first")
    response = open_stream(ContentType="text/csv")
    events = iter(response["Body"])
    assert read_part(events) == b"first"
    source.put(b"second")
    assert read_part(events) == b"second"
    source.put(b"")
    assert list(events) == []
    assert response["ContentType"] == "text/plain"
    assert response["CustomAttributes"] == "seen"
    assert response["InvokedProductionVariant"] == "main"


def test_silent_container_does_not_end_the_stream(
    open_stream: OpenStream, source: ResponseSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PAUSE_INTERVAL", 0.05)
    events = iter(open_stream()["Body"])  # the headers arrive before the first part
    time.sleep(0.3)
    source.put(b"late", b"")
    assert [event["PayloadPart"]["Bytes"] for event in events] == [b"late"]


def test_container_error_is_a_model_error(open_stream: OpenStream, model: ImageBehaviour) -> None:
    model.invoke = lambda _: Reply(b"no such column", 400)
    with pytest.raises(ClientError, match="no such column") as caught:
        open_stream()
    members: Any = caught.value.response
    assert members["OriginalStatusCode"] == 400


def test_container_that_ends_in_mid_stream_is_a_stream_error(
    parts: ServerParts, open_stream: OpenStream, source: ResponseSource
) -> None:
    source.put(b"first")
    events = iter(open_stream()["Body"])
    assert read_part(events) == b"first"
    (host,) = parts.running_hosts
    host.stop(0)
    with pytest.raises(EventStreamError, match="StreamBroken"):
        list(events)


def test_container_that_exceeds_the_time_limit_is_a_stream_error(
    open_stream: OpenStream, source: ResponseSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sagemaker_runtime, "STREAM_TIMEOUT", 0.5)
    source.put(b"first")
    events = iter(open_stream()["Body"])
    with pytest.raises(EventStreamError, match="ModelInvocationTimeExceeded"):
        list(events)


def test_container_waits_for_a_slow_client(open_stream: OpenStream, model: ImageBehaviour) -> None:
    sent_numbers = []

    def produce() -> Iterator[bytes]:
        for number in range(2000):
            sent_numbers.append(number)
            yield bytes(1 << 16)

    model.invoke = lambda _: Reply(chunks=produce())
    events = iter(open_stream()["Body"])
    assert read_part(events)
    previous_count = -1
    while len(sent_numbers) != previous_count:  # until the buffers of the sockets are full
        previous_count = len(sent_numbers)
        time.sleep(0.3)
    assert len(sent_numbers) < 1000
    assert sum(len(event["PayloadPart"]["Bytes"]) for event in events) > 1900 << 16


@pytest.mark.parametrize("is_silent", [True, False])
def test_disconnected_client_ends_the_request_to_the_container(
    parts: ServerParts,
    address: tuple[str, int],
    model: ImageBehaviour,
    monkeypatch: pytest.MonkeyPatch,
    is_silent: bool,
) -> None:
    monkeypatch.setattr(streams, "PAUSE_INTERVAL", 0.05)
    released = threading.Event()

    def produce() -> Iterator[bytes]:
        yield b"first"
        try:
            while is_silent and not released.wait(0.01):
                pass
            while True:
                time.sleep(0.01)
                yield b"more"
        finally:
            released.set()

    model.invoke = lambda _: Reply(chunks=produce())
    with socket.create_connection(address) as client:
        head = "POST /endpoints/e/invocations-response-stream HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
        client.sendall(head.encode())
        assert b"200" in client.recv(1 << 16)
    endpoint = parts.registry.find("endpoint/e")
    assert isinstance(endpoint, Endpoint)
    wait_until(lambda: (replica := endpoint.choose_replica()) and not replica.traffic.find_longest_timeout())
    released.set()


def test_update_does_not_cut_an_open_stream(
    parts: ServerParts, open_stream: OpenStream, source: ResponseSource
) -> None:
    source.put(b"first")
    events = iter(open_stream()["Body"])
    assert read_part(events) == b"first"
    parts.make_config("d", second={})
    parts.update_endpoint("d")
    wait_until(lambda: parts.describe_endpoint()["EndpointConfigName"] == "d")
    source.put(b"second", b"")
    assert [event["PayloadPart"]["Bytes"] for event in events] == [b"second"]
    wait_until(lambda: len(parts.runtime.hosts) == 1)


def test_update_ends_a_stream_after_the_drain_time(
    parts: ServerParts, open_stream: OpenStream, source: ResponseSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployer, "DRAIN_TIMEOUT", 0.2)
    source.put(b"first")
    events = iter(open_stream()["Body"])
    parts.make_config("d", second={})
    parts.update_endpoint("d")
    with pytest.raises(EventStreamError, match="StreamBroken"):
        list(events)
