"""Dynamic batching: how invocations are combined, and that each gets the response that it would get alone."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from microjobs.bundle import read_bundle
from microjobs.errors import UserError
from microjobs.hosting import batching, bundle_model, invocation_queue
from microjobs.hosting.batching import BatchSettings, find_batch_rows, predict_together, read_settings
from microjobs.hosting.bundle_model import BundleModel
from microjobs.hosting.fast_path import Dispatcher
from microjobs.hosting.metrics import Metrics
from microjobs.hosting.responses import HttpResponse
from microjobs.hosting.service import Service
from tests.polling import wait_until
from tests.unit.serve.conftest import run_server
from tests.unit.serve.exchanges import FakeExchange, FakeHead
from tests.unit.serve.test_serve_fast_path import invoke, wait_for_response
from tests.unit.serve.test_serve_handlers import run_server_with_program

TIMEOUT_SECONDS = 10


class PausedModel(BundleModel):
    """A bundle's model that counts as slow, and waits for the test's permission before each run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(read_bundle(folder))
        self.is_fast, self.max_batch_rows = False, 64
        self.rows_by_run: list[int] = []
        self.run_starts, self.permission = threading.Semaphore(0), threading.Semaphore(0)

    def predict(self, rows: Any) -> Any:
        # The base class predicts rows before this attribute exists, to measure the model.
        if hasattr(self, "rows_by_run"):
            self.rows_by_run.append(len(rows))
            self.run_starts.release()
            assert self.permission.acquire(timeout=TIMEOUT_SECONDS)
        return super().predict(rows)

    def wait_for_run(self) -> None:
        assert self.run_starts.acquire(timeout=TIMEOUT_SECONDS)


@pytest.fixture
def model(root: Path) -> Iterator[PausedModel]:
    model = PausedModel(root / "model")
    yield model
    model.permission.release(100)  # if the test has failed, runs may still wait


def make_dispatcher(model: PausedModel, **settings: Any) -> Dispatcher:
    service = Service(Metrics({}), max_body_bytes=1 << 20, worker_count=1)
    service.metrics.claim_worker_row()
    service.set_model(model)
    return Dispatcher(
        service, lambda _head: HttpResponse(404, [], b""), queue_size=128, batching=BatchSettings(**settings)
    )


def send(dispatcher: Dispatcher, *values: int) -> FakeExchange:
    """Send one row of three equal features per value."""
    return invoke(dispatcher, json.dumps([[value] * 3 for value in values]).encode())


def read_predictions(exchange: FakeExchange) -> list[float]:
    status, _, body = wait_for_response(exchange)
    assert status == 200
    return [row[0] for row in json.loads(body)["predictions"]]


def test_invocations_that_arrive_during_a_run_share_the_next_run(model: PausedModel) -> None:
    dispatcher = make_dispatcher(model)
    first = send(dispatcher, 1)
    model.wait_for_run()
    others = [send(dispatcher, 2), send(dispatcher, 3, 4), send(dispatcher, 5)]
    model.permission.release(2)
    assert [read_predictions(exchange) for exchange in (first, *others)] == [[3], [6], [9, 12], [15]]
    assert model.rows_by_run == [1, 4]


def test_invalid_invocations_of_a_batch_fail_alone(model: PausedModel) -> None:
    dispatcher = make_dispatcher(model)
    first = send(dispatcher, 1)
    model.wait_for_run()
    bodies = [b"[[1, 2]]", b"[[1, 2, 3]]", b"no JSON", b"[[3e38, 3e38, 3e38]]", b"[[4, 4, 4]]"]
    others = [invoke(dispatcher, body) for body in bodies]
    model.permission.release(2)
    statuses = [wait_for_response(exchange)[0] for exchange in (first, *others)]
    assert statuses == [200, 400, 200, 400, 500, 200], "the sum of the fourth body is not finite"
    assert (read_predictions(others[1]), read_predictions(others[4]), model.rows_by_run) == ([6], [12], [1, 3])


def test_full_batch_leaves_other_invocations_for_the_next_run(model: PausedModel) -> None:
    model.max_batch_rows = 2
    dispatcher = make_dispatcher(model)
    exchanges = [send(dispatcher, 0)]
    model.wait_for_run()
    exchanges += [send(dispatcher, value) for value in range(1, 6)]
    model.permission.release(4)
    assert [read_predictions(exchange) for exchange in exchanges] == [[3 * value] for value in range(6)]
    assert model.rows_by_run == [1, 2, 2, 1]


class OrderedExchange(FakeExchange):
    """An exchange that also records its number when it gets a response, and the functions that the event loop calls."""

    def __init__(self, number: int, order: list[int], calls: list[Any]) -> None:
        super().__init__()
        self._number, self._order, self._calls = number, order, calls

    def run_in_loop(self, function: Any, *arguments: object) -> None:
        self._calls.append(function)
        function(*arguments)

    def respond(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self._order.append(self._number)
        super().respond(status, headers, body)


def send_in_order(dispatcher: Dispatcher, count: int) -> tuple[list[int], list[Any]]:
    """Send invocations; return the numbers of the answered ones, and the functions that the event loop called."""
    order: list[int] = []
    calls: list[Any] = []
    for number in range(count):
        body = json.dumps([[number] * 3]).encode()
        exchange = OrderedExchange(number, order, calls)
        dispatcher(FakeHead("POST", "/invocations", headers={"content-length": str(len(body))}), exchange)
        exchange.finish_read(body)
    return order, calls


def test_batches_answer_invocations_in_the_order_of_their_arrival(model: PausedModel) -> None:
    model.max_batch_rows = 3
    dispatcher = make_dispatcher(model)
    send(dispatcher, 0)
    model.wait_for_run()
    order, calls = send_in_order(dispatcher, 8)
    model.permission.release(4)
    wait_until(lambda: len(order) == 8)
    assert (order, model.rows_by_run) == (list(range(8)), [1, 3, 3, 2])
    assert len(calls) == 3, "one call in the event loop sends all responses of a batch"


def test_batch_waits_for_the_clients_of_the_previous_batch(model: PausedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invocation_queue, "MAX_DELAY_SHARE", 1e9)
    dispatcher = make_dispatcher(model, max_delay_seconds=TIMEOUT_SECONDS)
    exchanges = [send(dispatcher, 1)]
    model.wait_for_run()
    exchanges += [send(dispatcher, 2), send(dispatcher, 3)]
    model.permission.release(2)
    wait_for_response(exchanges[0])
    exchanges.append(send(dispatcher, 4))  # the first client sends again
    assert [read_predictions(exchange) for exchange in exchanges] == [[3], [6], [9], [12]]
    assert model.rows_by_run == [1, 3]


def test_single_client_never_waits_for_others(model: PausedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invocation_queue, "MAX_DELAY_SHARE", 1e9)
    dispatcher = make_dispatcher(model, max_delay_seconds=1000)
    model.permission.release(3)
    assert [read_predictions(send(dispatcher, value)) for value in (1, 2, 3)] == [[3], [6], [9]]


def test_mode_off_runs_each_invocation_alone(model: PausedModel) -> None:
    dispatcher = make_dispatcher(model, mode="off")
    exchanges = [send(dispatcher, 1)]
    model.wait_for_run()
    exchanges += [send(dispatcher, 2), send(dispatcher, 3)]
    model.permission.release(3)
    assert [read_predictions(exchange) for exchange in exchanges] == [[3], [6], [9]]
    assert model.rows_by_run == [1, 1, 1]


class DeferringExchange(FakeExchange):
    """An exchange whose listener stores callbacks, which the test calls."""

    def __init__(self, deferred_callbacks: list[Any]) -> None:
        super().__init__()
        self._deferred_callbacks = deferred_callbacks

    def call_soon(self, callback: Any) -> None:
        self._deferred_callbacks.append(callback)


def test_ready_invocations_are_queued_in_one_call(model: PausedModel) -> None:
    dispatcher = make_dispatcher(model)
    deferred_callbacks: list[Any] = []
    exchanges = [DeferringExchange(deferred_callbacks) for _ in range(3)]
    for exchange in exchanges:
        dispatcher(FakeHead("POST", "/invocations", headers={"content-length": "11"}), exchange)
        exchange.finish_read(b"[[1, 1, 1]]")
    assert (len(deferred_callbacks), model.rows_by_run) == (1, [])
    model.permission.release(3)
    deferred_callbacks[0]()
    assert [read_predictions(exchange) for exchange in exchanges] == [[3]] * 3
    assert sum(model.rows_by_run) == 3


@pytest.mark.parametrize(("mode", "rows_by_run"), [("auto", [2, 2, 1]), ("off", [1, 1, 1, 1, 1])])
def test_ready_invocations_of_a_fast_model_share_a_run(model: PausedModel, mode: str, rows_by_run: list[int]) -> None:
    model.is_fast, model.max_batch_rows = True, 2
    model.permission.release(5)
    dispatcher = make_dispatcher(model, mode=mode)
    deferred_callbacks: list[Any] = []
    exchanges = [DeferringExchange(deferred_callbacks) for _ in range(6)]
    bodies = [b"[[1, 1, 1]]", b"[[2, 2]]", b"[[3, 3, 3]]", b"[[4, 4, 4]]", b"[[5, 5, 5]]", b"[[6, 6, 6]]"]
    for exchange, body in zip(exchanges, bodies, strict=True):
        dispatcher(FakeHead("POST", "/invocations", headers={"content-length": str(len(body))}), exchange)
        exchange.finish_read(body)
    assert (len(deferred_callbacks), model.rows_by_run) == (1, [])
    deferred_callbacks[0]()
    assert [exchange.responses[0][0] for exchange in exchanges] == [200, 400, 200, 200, 200, 200]
    assert [read_predictions(exchanges[index]) for index in (0, 2, 3, 4, 5)] == [[3], [9], [12], [15], [18]]
    assert model.rows_by_run == rows_by_run


def test_raw_and_scaled_rows_share_a_batch(model: PausedModel) -> None:
    dispatcher = make_dispatcher(model)
    send(dispatcher, 1)
    model.wait_for_run()
    raw = invoke(dispatcher, b'{"instances": [[3, 4, 7]], "signature_name": "raw"}')
    scaled = send(dispatcher, 2)
    model.permission.release(2)
    assert (read_predictions(raw), read_predictions(scaled), model.rows_by_run) == ([3], [6], [1, 2])


class Clock:
    """A clock that the measured model advances."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(batching, "time", SimpleNamespace(thread_time=lambda: self.now))

    def predict(self, rows: Any, seconds: float) -> Any:
        self.now += seconds
        return rows[:, :1]


def test_batches_grow_while_they_make_rows_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert find_batch_rows(lambda rows: clock.predict(rows, 0.002 + 0.0004 * len(rows)), features=3) == 256
    assert find_batch_rows(lambda rows: clock.predict(rows, 0.002), features=3) == batching.MAX_BATCH_ROWS


def test_batches_do_not_grow_to_a_size_that_makes_rows_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    seconds = {1: 0.002, 4: 0.004, 16: 0.012, 64: 0.053}
    assert find_batch_rows(lambda rows: clock.predict(rows, seconds[len(rows)]), features=3) == 16


def test_last_batch_may_be_slightly_slower_per_row(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    seconds = {1: 0.002, 4: 0.004, 16: 0.012, 64: 0.050}
    assert find_batch_rows(lambda rows: clock.predict(rows, seconds[len(rows)]), features=3) == 64


def test_model_whose_time_is_proportional_to_its_rows_is_not_batched(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert find_batch_rows(lambda rows: clock.predict(rows, 0.002 * len(rows)), features=3) == 1


def test_model_whose_rows_depend_on_each_other_is_not_batched() -> None:
    assert find_batch_rows(lambda rows: rows - rows.mean(axis=0), features=3) == 1


def test_model_that_rejects_the_measured_rows_is_not_batched() -> None:
    def reject(_rows: Any) -> Any:
        raise ValueError("no categories")

    assert find_batch_rows(reject, features=3) == 1


def test_bundle_that_no_batch_makes_faster_is_not_batched(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_model, "find_batch_rows", lambda *_: 1)
    assert BundleModel(read_bundle(root / "model")).batch_model is None


def test_inputs_of_different_shapes_and_failed_batches_are_predicted_one_by_one() -> None:
    def predict(rows: Any) -> Any:
        if not np.isfinite(rows).all():
            raise ValueError("not finite")
        return rows.sum(axis=1)

    two_columns, three_columns, nan_row = np.ones((1, 2)), np.ones((2, 3)), np.full((1, 3), np.nan)
    assert [list(result) for result in predict_together(predict, [two_columns, three_columns])] == [[2], [3, 3]]
    predictions, error = predict_together(predict, [three_columns, nan_row])
    assert (list(predictions), str(error)) == ([3, 3], "not finite")


def test_flat_arrays_are_not_joined() -> None:
    sums = predict_together(lambda rows: [rows.sum()] * len(rows), [np.ones(3), np.ones(3)])
    assert sums == [[3.0] * 3] * 2


@pytest.mark.parametrize(
    ("name", "value"), [("MICROJOBS_SERVE_BATCHING", "yes"), ("MICROJOBS_SERVE_MAX_BATCH_DELAY_MS", "-1")]
)
def test_invalid_setting_is_an_error(name: str, value: str) -> None:
    with pytest.raises(UserError, match=f"{name} is '{value}': set it to"):
        read_settings({name: value})


def test_settings_are_read_from_variables() -> None:
    variables = {"MICROJOBS_SERVE_BATCHING": "on", "MICROJOBS_SERVE_MAX_BATCH_DELAY_MS": "2.5"}
    assert read_settings(variables) == BatchSettings("on", 0.0025)


SUM_PROGRAM = """
import time
import numpy as np
def model_fn(model_dir):
    return None
def predict_fn(data, model):
    print(f"rows {len(data)}", flush=True)
    time.sleep(0.2)
    if (data < 0).any():
        raise ValueError("negative")
    return data.sum(axis=1, keepdims=True)
"""


def invoke_at_once(server: Any, bodies: list[str]) -> list[Any]:
    replies: list[Any] = [None] * len(bodies)

    def run(index: int) -> None:
        replies[index] = server.invoke(bodies[index])

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies


@pytest.mark.parametrize(("mode", "has_batches"), [("on", True), ("auto", False)])
def test_handlers_are_batched_only_if_the_setting_is_on(root: Path, mode: str, has_batches: bool) -> None:
    with run_server_with_program(root, SUM_PROGRAM, MICROJOBS_SERVE_BATCHING=mode) as server:
        replies = invoke_at_once(server, [f"[[{number}, 1]]" for number in range(6)])
        assert [reply.json for reply in replies] == [[[number + 1.0]] for number in range(6)]
        assert any(f"rows {count}" in server.log for count in range(2, 7)) == has_batches


def test_request_that_a_handler_rejects_does_not_fail_its_batch(root: Path) -> None:
    with run_server_with_program(root, SUM_PROGRAM, MICROJOBS_SERVE_BATCHING="on") as server:
        replies = invoke_at_once(server, ["[[1, 1]]", "[[1, -1]]", "[[2, 1]]", "no JSON", "[[3, 1, 1]]"])
    assert [reply.status for reply in replies] == [200, 500, 200, 400, 200]
    assert "negative" in replies[1].error


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("def transform_fn(model, body, content_type, accept): return body", "has transform_fn"),
        ("def predict_fn(data, model, context): return data", "has predict_fn with a context"),
    ],
)
def test_program_that_cannot_be_batched_ends_the_job(root: Path, function: str, reason: str) -> None:
    code = root / "model" / "code"
    code.mkdir()
    (code / "inference.py").write_text(f"def model_fn(model_dir): return None\n{function}\n")
    with run_server(root, MICROJOBS_SERVE_BATCHING="on") as server:
        assert server.wait() == 2
    assert f"MICROJOBS_SERVE_BATCHING is on, but inference.py {reason}" in (server.failure or "")
