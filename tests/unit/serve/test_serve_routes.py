"""The routes besides /invocations, and that Flask and the callable in front of it answer alike."""

import io
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from microjobs.bundle import read_bundle
from microjobs_serve.answers import Answer
from microjobs_serve.application import create
from microjobs_serve.hot import Front
from microjobs_serve.metrics import Metrics
from microjobs_serve.models import BundleModel
from microjobs_serve.service import Service
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
    service = Service(Metrics({}), limit=1000, workers=1)
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
def test_flask_alone_answers_invocations_alike(service: Service, server: Server, body: bytes) -> None:
    reply = server.ask("POST", "/invocations", body)
    expected = (reply.status, reply.headers["content-type"], reply.body)
    assert call(create(service), "POST", "/invocations", body) == expected


def test_flask_alone_answers_ping_alike(service: Service) -> None:
    status, _, body = call(create(service), "GET", "/ping", b"")
    assert (status, body) == (200, b"")


class Broken:
    quick = True

    def invoke(self, _request: object) -> Any:
        raise RuntimeError("inner secret")


def test_bug_of_ours_is_500_without_traceback(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    service.loaded(Broken())
    with caplog.at_level(logging.ERROR):
        status, _, body = call(create(service), "POST", "/invocations", b"x")
    assert (status, b"secret" in body, "inner secret" in caplog.text) == (500, False, True)


def test_ping_is_503_before_all_workers_loaded(root: Path) -> None:
    service = Service(Metrics({}), limit=1000, workers=2)
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


class Asked:
    """A request without a body, and what it was answered."""

    method, path, query_string = "GET", "/ping", ""
    headers: dict[str, str]

    def __init__(self) -> None:
        self.headers = {}
        self.sent: list[tuple[int, list[tuple[str, str]], bytes]] = []

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.sent.append((status, headers, body))


def test_answers_while_stopping_close_the_connection(service: Service) -> None:
    asked: Any = Asked()
    service.metrics.stop()
    Front(service, lambda _scope: Answer(404, [], b""), in_flight=1)(asked, asked)
    ((status, headers, _),) = asked.sent
    assert (status, ("connection", "close") in headers) == (503, True)


def test_front_answers_500_whatever_goes_wrong(service: Service) -> None:
    asked: Any = Asked()
    asked.method, asked.path, asked.headers = "POST", "/invocations", None
    Front(service, lambda _scope: Answer(404, [], b""), in_flight=1)(asked, asked)
    assert [status for status, _, _ in asked.sent] == [500]
