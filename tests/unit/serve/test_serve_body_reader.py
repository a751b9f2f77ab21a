"""Bodies in transit: completeness, limits, the memory budget and deadlines."""

import concurrent.futures
import time

import pytest

from microjobs.hosting import body_reader
from microjobs.hosting.body_reader import BodyReader
from microjobs.hosting.responses import HttpError
from tests.unit.serve.exchanges import FakeExchange

Results = list[bytes | HttpError]


def start_reading(reader: BodyReader, content_length: str = "") -> tuple[FakeExchange, Results]:
    """Return an exchange whose body is being read, and the list that the result will be added to."""
    exchange, results = FakeExchange(), Results()
    reader.read(exchange, content_length, results.append)
    return exchange, results


def list_statuses(results: Results) -> list[int]:
    return [result.status for result in results if isinstance(result, HttpError)]


def test_chunks_are_joined() -> None:
    exchange, results = start_reading(BodyReader(max_body_bytes=100))
    exchange.finish_read(b"1,")
    exchange.finish_read(b"2")
    exchange.finish_body()
    assert results == [b"1,2"]


def test_empty_body_is_read() -> None:
    exchange, results = start_reading(BodyReader(max_body_bytes=100))
    exchange.finish_body()
    assert results == [b""]


@pytest.mark.parametrize(("length", "is_one_piece"), [(3, True), (256 * 1024, True), (256 * 1024 + 1, False)])
def test_small_body_is_read_in_one_piece(length: int, is_one_piece: bool) -> None:
    exchange, results = start_reading(BodyReader(max_body_bytes=1 << 20), str(length))
    exchange.finish_read(b"1,2")
    assert (results == [b"1,2"], len(exchange.reads) == 1) == (is_one_piece, is_one_piece)


class ArrivedExchange(FakeExchange):
    """An exchange whose body has arrived before it is read."""

    def take_body(self) -> bytes:
        return b"1,2"


@pytest.mark.parametrize(("length", "is_taken"), [("3", True), (str(256 * 1024 + 1), False), ("", False)])
def test_small_body_that_has_arrived_needs_no_read(length: str, is_taken: bool) -> None:
    reader, exchange, results = BodyReader(max_body_bytes=1 << 20), ArrivedExchange(), Results()
    reader.read(exchange, length, results.append)
    assert (results == [b"1,2"], exchange.reads == [], reader.pending_reads == {}) == (is_taken, is_taken, is_taken)


@pytest.mark.parametrize("content", [b"", RuntimeError("transport is closed")])
def test_incomplete_body_gets_status_400(content: bytes | BaseException) -> None:
    exchange, results = start_reading(BodyReader(max_body_bytes=100))
    exchange.finish_read(b"1,2")
    exchange.finish_read(content)
    assert list_statuses(results) == [400]


def test_body_at_the_limit_is_read() -> None:
    exchange, results = start_reading(BodyReader(max_body_bytes=3))
    exchange.finish_read(b"1,2")
    exchange.finish_body()
    assert results == [b"1,2"]


def test_too_large_body_gets_status_413_once_and_is_read_to_its_end() -> None:
    reader = BodyReader(max_body_bytes=3)
    exchange, results = start_reading(reader)
    exchange.finish_read(b"1,2,")
    exchange.finish_read(b"3")
    exchange.finish_body()
    assert list_statuses(results) == [413]
    assert reader.pending_reads == {}


def test_large_bodies_share_a_memory_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_reader, "MAX_BUFFERED_BYTES", 8)
    reader = BodyReader(max_body_bytes=4)
    (first, first_results), (second, _), (third, third_results) = (start_reading(reader) for _ in range(3))
    for exchange in (first, second, third):
        exchange.finish_read(b"1,23")
    assert list_statuses(third_results) == [503]
    first.finish_body()
    fourth, fourth_results = start_reading(reader)
    fourth.finish_read(b"1,23")
    fourth.finish_body()
    assert (first_results, fourth_results) == ([b"1,23"], [b"1,23"])


def test_memory_budget_suffices_for_two_bodies_of_maximum_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_reader, "MAX_BUFFERED_BYTES", 1)
    reader = BodyReader(max_body_bytes=4)
    results_of_both: list[Results] = []
    for _ in range(2):
        exchange, results = start_reading(reader)
        exchange.finish_read(b"1,23")
        results_of_both.append(results)
    assert results_of_both == [[], []]


def test_memory_budget_is_256_mb() -> None:
    reader = BodyReader(max_body_bytes=4)
    assert (reader.reserve(256 * 1024 * 1024), reader.reserve(1)) == (True, False)


def test_discarded_body_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_reader, "MAX_BUFFERED_BYTES", 8)
    reader, discarded_exchange = BodyReader(max_body_bytes=4), FakeExchange()
    reader.discard(discarded_exchange)
    discarded_exchange.finish_read(bytes(1000))
    assert reader.reserve(8)
    discarded_exchange.finish_body()
    assert reader.pending_reads == {}


@pytest.mark.parametrize("content_length", ["3", ""])
def test_late_body_gets_status_408(content_length: str) -> None:
    reader = BodyReader(max_body_bytes=100)
    (_, results), now = start_reading(reader, content_length), time.perf_counter()
    reader.cancel_overdue(now + body_reader.BODY_TIMEOUT - 1)
    assert results == []
    reader.cancel_overdue(now + body_reader.BODY_TIMEOUT + 1)
    assert (list_statuses(results), reader.pending_reads) == ([408], {})


def test_read_that_another_thread_cancelled_causes_status_408() -> None:
    exchange, results = start_reading(BodyReader(max_body_bytes=100))
    exchange.finish_read(concurrent.futures.CancelledError())
    assert list_statuses(results) == [408]


def test_deadline_grows_with_the_bytes_received() -> None:
    reader = BodyReader(max_body_bytes=10 * body_reader.BYTES_PER_SECOND)
    (exchange, results), now = start_reading(reader), time.perf_counter()
    exchange.finish_read(bytes(5 * body_reader.BYTES_PER_SECOND))
    reader.cancel_overdue(now + body_reader.BODY_TIMEOUT + 4)
    assert results == []
    reader.cancel_overdue(now + body_reader.BODY_TIMEOUT + 6)
    assert list_statuses(results) == [408]


def test_deadlines_are_enforced_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_reader, "TIMEOUT_CHECK_INTERVAL", 0.01)
    monkeypatch.setattr(body_reader, "BODY_TIMEOUT", 0.05)
    reader = BodyReader(max_body_bytes=100)
    _, results = start_reading(reader)
    reader.start_enforcing_deadlines()
    deadline = time.monotonic() + 5
    while not results and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list_statuses(results) == [408]
