"""The dispatcher and the service of one worker, without a server."""

import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from microjobs.bundle import read_bundle
from microjobs.hosting.bundle_model import BundleModel
from microjobs.hosting.fast_path import Dispatcher
from microjobs.hosting.metrics import Metrics
from microjobs.hosting.responses import HttpError, HttpResponse
from microjobs.hosting.service import Invocation, Service
from tests.unit.serve.exchanges import FakeExchange, FakeHead

BODY = b'{"instances": [[1, 2, 3]]}'


@pytest.fixture
def service(root: Path) -> Service:
    service = Service(Metrics({}), max_body_bytes=1000, worker_count=1)
    service.metrics.claim_worker_row()
    service.set_model(BundleModel(read_bundle(root / "model")))
    return service


class FakeModel:
    """A model that runs a function of the test."""

    has_routes = False
    batch_model = None

    def __init__(self, run: Any, *, is_fast: bool) -> None:
        self._run = run
        self.is_fast = is_fast

    def invoke(self, _invocation: Invocation) -> HttpResponse:
        self._run()
        return HttpResponse(200, [], b"done", 1)


def make_dispatcher(service: Service, queue_size: int = 1, route_prefix: str = "") -> Dispatcher:
    return Dispatcher(
        service, lambda _head: HttpResponse(404, [], b""), queue_size=queue_size, route_prefix=route_prefix
    )


def invoke(dispatcher: Dispatcher, body: bytes = BODY, **headers: str) -> FakeExchange:
    """Send an invocation and its body, and return its exchange."""
    exchange = FakeExchange()
    fields = {name.replace("_", "-"): value for name, value in headers.items()} | {"content-length": str(len(body))}
    dispatcher(FakeHead("POST", "/invocations", headers=fields), exchange)
    if not exchange.responses:
        exchange.finish_read(body)
    return exchange


def wait_for_response(exchange: FakeExchange) -> tuple[int, list[tuple[str, str]], bytes]:
    deadline = time.monotonic() + 5
    while not exchange.responses and time.monotonic() < deadline:
        time.sleep(0.001)
    (response,) = exchange.responses
    return response


def test_requests_below_the_prefix_are_invocations_with_their_method_and_path(service: Service) -> None:
    invocations: list[Invocation] = []

    class RoutedModel(FakeModel):
        has_routes = True

        def invoke(self, invocation: Invocation) -> HttpResponse:
            invocations.append(invocation)
            return HttpResponse(200, [], b"done", 1)

    service.set_model(RoutedModel(None, is_fast=True))
    dispatcher = make_dispatcher(service, route_prefix="/v1/")
    for method, path, body in (("GET", "/v1/models/a", b""), ("POST", "/v1/models/a:predict", BODY)):
        exchange = FakeExchange()
        dispatcher(FakeHead(method, path), exchange)
        if body:
            exchange.finish_read(body)
        exchange.finish_body()
        assert exchange.responses == [(200, [], b"done")]
    assert invoke(dispatcher).responses == [(200, [], b"done")]
    assert [(item.method, item.path, item.body) for item in invocations] == [
        ("GET", "/v1/models/a", b""),
        ("POST", "/v1/models/a:predict", BODY),
        ("POST", "/invocations", BODY),
    ]
    assert invoke(dispatcher, b"").responses[0][0] == 400, "an invocation needs a body"


@pytest.mark.parametrize(("method", "body"), [("DELETE", b""), ("POST", b""), ("POST", BODY)])
def test_model_without_routes_is_not_run_on_paths_below_the_prefix(service: Service, method: str, body: bytes) -> None:
    runs: list[bool] = []
    service.set_model(FakeModel(lambda: runs.append(True), is_fast=True))
    exchange = FakeExchange()
    headers = {"content-length": str(len(body))}
    make_dispatcher(service, route_prefix="/v1/")(FakeHead(method, "/v1/models/a", headers=headers), exchange)
    if not exchange.responses:
        exchange.finish_read(body)
    status, _, content = wait_for_response(exchange)
    assert (status, runs) == (404, [])
    assert f"{method} /v1/models/a is not found: this model answers only POST /invocations" in content.decode()


def test_other_paths_reach_the_fallback_in_spite_of_the_prefix(service: Service) -> None:
    exchange = FakeExchange()
    make_dispatcher(service, route_prefix="/v1/")(FakeHead("GET", "/v2/models/a"), exchange)
    assert wait_for_response(exchange)[0] == 404


@pytest.mark.parametrize("size", [1, 256 * 1024])
def test_small_request_to_a_fast_model_is_answered_in_the_same_thread(service: Service, size: int) -> None:
    threads: list[threading.Thread] = []
    service.max_body_bytes = 1 << 20
    service.set_model(FakeModel(lambda: threads.append(threading.current_thread()), is_fast=True))
    assert invoke(make_dispatcher(service), bytes(size)).responses[0][0] == 200
    assert threads == [threading.current_thread()]


@pytest.mark.parametrize(("is_fast", "size"), [(True, 256 * 1024 + 1), (False, 1)])
def test_large_or_slow_invocation_is_answered_in_another_thread(service: Service, is_fast: bool, size: int) -> None:
    threads: list[threading.Thread] = []
    service.max_body_bytes = 1 << 20
    service.set_model(FakeModel(lambda: threads.append(threading.current_thread()), is_fast=is_fast))
    exchange = FakeExchange()
    make_dispatcher(service)(FakeHead("POST", "/invocations"), exchange)
    exchange.finish_read(bytes(size))
    exchange.finish_body()
    assert wait_for_response(exchange)[0] == 200
    assert threads != [threading.current_thread()]


def test_small_bundle_counts_as_fast(service: Service) -> None:
    assert service.is_fast


def test_queue_slots_are_released(service: Service) -> None:
    permission = threading.Event()
    service.set_model(FakeModel(permission.wait, is_fast=False))
    dispatcher = make_dispatcher(service, queue_size=2)
    accepted = [invoke(dispatcher), invoke(dispatcher)]
    assert invoke(dispatcher).responses[0][0] == 503
    permission.set()
    assert [wait_for_response(exchange)[0] for exchange in accepted] == [200, 200]
    assert wait_for_response(invoke(dispatcher))[0] == 200


def test_thread_that_ends_with_an_error_is_replaced(service: Service) -> None:
    has_run = threading.Event()

    def stop() -> None:
        has_run.set()
        raise SystemExit(1)

    service.set_model(FakeModel(stop, is_fast=False))
    dispatcher = make_dispatcher(service, queue_size=2)
    invoke(dispatcher)
    assert has_run.wait(5)
    service.set_model(FakeModel(lambda: None, is_fast=False))
    assert wait_for_response(invoke(dispatcher))[0] == 200


def test_bug_causes_status_500_without_a_traceback(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("inner secret")

    service.set_model(FakeModel(fail, is_fast=True))
    with caplog.at_level(logging.ERROR):
        ((status, _, body),) = invoke(make_dispatcher(service)).responses
    assert (status, b"secret" in body, "inner secret" in caplog.text) == (500, False, True)


def test_unreadable_head_gets_status_500(service: Service) -> None:
    exchange, head = FakeExchange(), FakeHead("POST", "/invocations")
    del head.headers
    make_dispatcher(service)(head, exchange)
    assert [status for status, _, _ in exchange.responses] == [500]


def test_failing_fallback_causes_status_500(service: Service) -> None:
    def fail(_head: object) -> HttpResponse:
        raise RuntimeError("inner secret")

    exchange = FakeExchange()
    Dispatcher(service, fail, queue_size=1)(FakeHead("GET", "/metrics"), exchange)
    assert wait_for_response(exchange)[0] == 500


@pytest.mark.parametrize(
    ("headers", "is_discarded"),
    [
        ({}, False),
        ({"content-length": "0"}, False),
        ({"content-length": "5"}, True),
        ({"transfer-encoding": "chunked"}, True),
        ({"content-length": "5", "expect": "100-continue"}, False),
    ],
)
def test_body_of_an_answered_request_is_discarded(
    service: Service, headers: dict[str, str], is_discarded: bool
) -> None:
    exchange = FakeExchange()
    dispatcher = make_dispatcher(service)
    dispatcher(FakeHead("POST", "/absent", headers=headers), exchange)
    next_exchange = FakeExchange()  # the same thread answers this exchange after the first exchange
    dispatcher(FakeHead("GET", "/absent"), next_exchange)
    wait_for_response(next_exchange)
    assert bool(exchange.reads) == is_discarded


def test_rejected_invocations_are_answered_before_their_body(service: Service) -> None:
    exchange = invoke(make_dispatcher(service), content_encoding="gzip")
    assert (exchange.responses[0][0], len(exchange.reads)) == (415, 1)


def test_responses_close_the_connection_while_stopping(service: Service) -> None:
    exchange = FakeExchange()
    service.metrics.mark_stopping()
    make_dispatcher(service)(FakeHead(), exchange)
    ((status, headers, _),) = exchange.responses
    assert (status, ("connection", "close") in headers) == (503, True)


def test_latency_counts_from_the_start_of_an_invocation(service: Service) -> None:
    start_time = time.perf_counter() - 2
    service.reject(HttpError(503, "busy"), start_time)
    service.invoke(Invocation(BODY, "", "", ""), start_time)
    (line,) = (text for text in service.metrics.render().decode().splitlines() if "invocation_seconds_sum" in text)
    assert float(line.split()[-1]) == pytest.approx(4, abs=0.9)


def test_ping_gets_status_503_until_all_workers_have_loaded_the_model(root: Path) -> None:
    service = Service(Metrics({}), max_body_bytes=1000, worker_count=2)
    model = BundleModel(read_bundle(root / "model"))
    statuses = [service.ping().status]
    for _ in range(2):
        service.metrics.claim_worker_row()
        service.set_model(model)
        statuses.append(service.ping().status)
    assert statuses == [503, 503, 200]


def test_ping_gets_status_503_while_stopping(service: Service) -> None:
    service.metrics.mark_stopping()
    assert service.ping().status == 503
