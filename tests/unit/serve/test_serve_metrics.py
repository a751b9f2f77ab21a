"""Counters that workers share, and their Prometheus text."""

import pytest

from microjobs.hosting.metrics import ROW_COUNT, Metrics


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics({"framework": "onnx"})
    metrics.claim_worker_row()
    return metrics


def list_metric_lines(metrics: Metrics) -> list[str]:
    return [line for line in metrics.render().decode().splitlines() if not line.startswith("#")]


def test_latencies_are_counted_in_cumulative_buckets(metrics: Metrics) -> None:
    for seconds in (0.00005, 0.001, 0.0011, 20.0):
        metrics.record_invocation(200, seconds, 1)
    buckets = {line.split('"')[1]: float(line.split()[-1]) for line in list_metric_lines(metrics) if "_bucket" in line}
    assert [buckets[bound] for bound in ("0.0001", "0.0005", "0.001", "0.0025", "10.0", "+Inf")] == [1, 1, 2, 3, 3, 4]
    assert "serve_invocation_seconds_count 4.0" in list_metric_lines(metrics)
    (total,) = (
        float(line.split()[-1])
        for line in list_metric_lines(metrics)
        if line.startswith("serve_invocation_seconds_sum")
    )
    assert total == pytest.approx(20.00215)


@pytest.mark.parametrize(
    ("status", "label"), [(200, "200"), (503, "503"), (202, "2xx"), (304, "3xx"), (429, "4xx"), (599, "5xx")]
)
def test_status_is_counted_by_its_number_or_its_class(metrics: Metrics, status: int, label: str) -> None:
    metrics.record_invocation(status, 0.0, 0)
    metrics.record_request("/ping", status)
    counts = [line for line in list_metric_lines(metrics) if line.startswith("serve_requests_total")]
    assert counts == [
        f'serve_requests_total{{route="{route}",status="{label}"}} 1.0' for route in ("/ping", "/invocations")
    ]


def test_unknown_route_counts_as_other_and_unknown_status_as_500(metrics: Metrics) -> None:
    metrics.record_request("/absent", 700)
    assert 'serve_requests_total{route="other",status="500"} 1.0' in list_metric_lines(metrics)


def test_workers_add_to_the_same_totals(metrics: Metrics) -> None:
    metrics.record_invocation(200, 0.5, 3)
    metrics.mark_loaded()
    # From now on, this process acts as a second worker, which calls this method after its fork.
    metrics.claim_worker_row()
    metrics.record_invocation(200, 0.5, 4)
    metrics.mark_loaded()
    metrics.mark_loaded()
    assert (metrics.count_invocations(), metrics.count_loaded_workers()) == (2, 2)
    assert "serve_predictions_total 7.0" in list_metric_lines(metrics)
    assert not metrics.is_stopping()


def test_rows_of_workers_are_reused_but_not_the_row_of_the_main_process() -> None:
    metrics, offsets = Metrics({}), []
    for _ in range(ROW_COUNT):
        metrics.claim_worker_row()
        offsets.append(metrics._row_offset)
    width = offsets[0]
    assert offsets == [*range(width, width * ROW_COUNT, width), width]
