"""The routes besides /invocations, and that Flask and the callable in front of it answer alike."""

import io
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from application import create
from hot import hot
from metrics import Metrics
from microjobs.bundle import read_bundle
from models import BundleModel
from service import Service
from tests.unit.serve.conftest import Server, started


def test_ping_is_200_with_empty_body(server: Server) -> None:
    reply = server.ask("GET", "/ping")
    assert (reply.status, reply.body) == (200, b"")


def test_execution_parameters_tell_what_suits(server: Server) -> None:
    expected = {"MaxConcurrentTransforms": 2, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6}
    assert server.ask("GET", "/execution-parameters").json == expected


def test_execution_parameters_respect_sagemakers_product(root: Path) -> None:
    environment = {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "60", "SAGEMAKER_BATCH": "true"}
    with started(root, SAGEMAKER_MODEL_SERVER_WORKERS="2", **environment) as server:
        server.wait_until_ready()
        parameters = server.ask("GET", "/execution-parameters").json
    assert (parameters["MaxPayloadInMB"], parameters["MaxConcurrentTransforms"]) == (60, 1)


def test_payload_limit_of_the_request_counts(root: Path) -> None:
    with started(root, SAGEMAKER_MAX_PAYLOAD_IN_MB="1") as server:
        server.wait_until_ready()
        assert server.invoke(b" " * (1024 * 1024 + 1)).status == 413


@pytest.mark.parametrize("path", ["/", "/ping/", "/invocations/x", "/models", "/PING", "/%ff"])
def test_unknown_path_is_404(server: Server, path: str) -> None:
    reply = server.ask("GET", path)
    assert (reply.status, "/invocations" in reply.error) == (404, True)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("POST", "/ping", "GET"), ("GET", "/invocations", "POST"), ("PUT", "/metrics", "GET")],
)
def test_wrong_method_is_405(server: Server, method: str, path: str, allowed: str) -> None:
    reply = server.ask(method, path)
    assert (reply.status, allowed in reply.headers["allow"], allowed in reply.error) == (405, True, True)


def counter(server: Server, name: str) -> float:
    match = re.search(rf"^{re.escape(name)} (\S+)$", server.ask("GET", "/metrics").body.decode(), re.MULTILINE)
    return float(match[1]) if match else 0.0


def test_metrics_count_over_all_workers(server: Server) -> None:
    name = 'serve_requests_total{route="/invocations",status="200"}'
    before, rows = counter(server, name), counter(server, "serve_predictions_total")
    for _ in range(40):  # each on a new connection, so that both workers get some
        assert server.invoke("1,2,3\n4,5,6", "text/csv").status == 200
    # Asked more than once: whichever worker answers must know of the others.
    assert {counter(server, name) for _ in range(8)} == {before + 40}
    assert counter(server, "serve_predictions_total") == rows + 80


def test_metrics_count_refusals_and_seconds(server: Server) -> None:
    refused, timed = 'serve_requests_total{route="/invocations",status="400"}', "serve_invocation_seconds_count"
    before = counter(server, refused), counter(server, timed)
    server.invoke("x")
    assert (counter(server, refused), counter(server, timed)) == (before[0] + 1, before[1] + 1)


def test_metrics_are_prometheus_text(server: Server) -> None:
    reply = server.ask("GET", "/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    assert b'serve_model_info{features="3",framework="onnx"} 1.0' in reply.body


@pytest.fixture
def service(root: Path) -> Service:
    service = Service(Metrics({}), limit=1000, in_flight=1, workers=1)
    service.metrics.claim()
    service.loaded(BundleModel(read_bundle(root / "model")))
    return service


def call(application: Any, method: str, path: str, body: bytes, **headers: str) -> tuple[int, str | None, bytes]:
    """An application's status, content type and body for one request."""
    told: list[Any] = []

    def start_response(status: str, sent: list[tuple[str, str]], *_: object) -> None:
        told.extend((int(status[:3]), {name.lower(): value for name, value in sent}.get("content-type")))

    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "CONTENT_LENGTH": str(len(body)), "SERVER_NAME": "x"}
    environ |= {"SERVER_PORT": "80", "wsgi.url_scheme": "http", "HTTP_HOST": "x"} | headers
    chunks: Iterable[bytes] = application({**environ, "wsgi.input": io.BytesIO(body)}, start_response)
    return told[0], told[1], b"".join(chunks)


@pytest.mark.parametrize("body", [b'{"instances": [[1, 2, 3]]}', b"", b"x", b"[" * 2000, b'{"instances": [[1]]}'])
def test_flask_alone_answers_invocations_alike(service: Service, body: bytes) -> None:
    flask = create(service)
    front = hot(service, lambda: flask)
    assert call(flask, "POST", "/invocations", body) == call(front, "POST", "/invocations", body)


def test_flask_alone_answers_ping_alike(service: Service) -> None:
    flask = create(service)
    status, _, body = call(flask, "GET", "/ping", b"")
    assert (status, body) == (200, b"")
    assert call(hot(service, lambda: flask), "GET", "/ping", b"")[0] == 200


def test_bug_of_ours_is_500_without_traceback(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def invoke(self, _request: object) -> Any:
            raise RuntimeError("inner secret")

    service.loaded(Broken())
    with caplog.at_level(logging.ERROR):
        status, _, body = call(hot(service, lambda: create(service)), "POST", "/invocations", b"x")
    assert (status, b"secret" in body, "inner secret" in caplog.text) == (500, False, True)


def test_body_cut_short_is_400(service: Service) -> None:
    status, _, body = call(hot(service, lambda: create(service)), "POST", "/invocations", b"1,2", CONTENT_LENGTH="10")
    assert (status, b"after 3 of 10 bytes" in body) == (400, True)


def test_ping_is_503_before_all_workers_loaded(root: Path) -> None:
    service = Service(Metrics({}), limit=1000, in_flight=1, workers=2)
    model = BundleModel(read_bundle(root / "model"))
    answers = [service.ping().status]
    for _ in range(2):
        service.metrics.claim()
        service.loaded(model)
        answers.append(service.ping().status)
    assert answers == [503, 503, 200]


def test_ping_is_503_while_stopping(service: Service) -> None:
    service.metrics.stop()
    assert service.ping().status == 503


def test_answers_while_stopping_close_the_connection(service: Service) -> None:
    sent: list[list[tuple[str, str]]] = []
    service.metrics.stop()
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/ping"}
    hot(service, lambda: create(service))(environ, lambda _status, headers: sent.append(headers))
    assert ("connection", "close") in sent[0]


class Endless:
    """A body without an end, which remembers how much was asked of it at once."""

    def __init__(self) -> None:
        self.sizes: list[int | None] = []

    def read(self, size: int | None = None) -> bytes:
        self.sizes.append(size)
        return b" " * (size or 0)


@pytest.mark.parametrize("length", [None, "5000"])
def test_large_body_is_never_held_in_memory(service: Service, length: str | None) -> None:
    stream = Endless()
    environ: dict[str, Any] = {"wsgi.input": stream} | ({} if length is None else {"CONTENT_LENGTH": length})
    assert service.invoke(environ).status == 413
    assert all(size is not None and size <= 1024 * 1024 for size in stream.sizes)
    assert sum(size or 0 for size in stream.sizes) <= 65 * 1024 * 1024
