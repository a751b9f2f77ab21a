"""CloudWatch's metrics of invocations: the number of requests, the number of errors, and latencies."""

import time
from collections.abc import Mapping

import pytest

from microjobs_orchestrator.local.metrics.statistics import Statistics
from microjobs_orchestrator.local.metrics.tables import Series
from microjobs_orchestrator.local.runtimes.base import Exit
from microjobs_orchestrator.local.services.cloudwatch import CloudWatch
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import ImageBehaviour, ReceivedRequest, Reply
from tests.local.jobs.test_endpoints_invocations import Invoker


def read_statistics(parts: ServerParts, variant: str = "main") -> Mapping[str, Statistics]:
    """Return the statistics of the metrics of a variant of the endpoint `e`, by name."""
    dimensions = (("EndpointName", "e"), ("VariantName", variant))
    return {
        series.name: Statistics.merge(point.statistics for point in parts.context.metrics.read(series))
        for series, _ in parts.context.metrics.list_series("AWS/SageMaker")
        if series.dimensions == dimensions
    }


def test_each_invocation_is_counted_with_its_errors(parts: ServerParts, model: ImageBehaviour) -> None:
    parts.deploy()
    invoke = Invoker(parts)
    for status in (200, 200, 201, 400, 404, 500):
        model.invoke = lambda _, status=status: Reply(b"", status)  # type: ignore[misc]
        if status < 300:
            invoke()
        else:
            invoke.read_model_error()
    statistics = read_statistics(parts)
    assert {name: (statistics[name].total, statistics[name].count) for name in statistics if "Latency" not in name} == {
        "Invocations": (6, 6),
        "InvocationsPerInstance": (6, 6),
        "Invocation4XXErrors": (2, 6),
        "Invocation5XXErrors": (1, 6),
        "InvocationModelErrors": (3, 6),
    }


@pytest.mark.usefixtures("model")
def test_instances_share_the_invocations(parts: ServerParts) -> None:
    parts.deploy(main={"InitialInstanceCount": 4})
    Invoker(parts)()
    change = {"VariantName": "main", "DesiredInstanceCount": 2}
    parts.endpoints.update_weights({"EndpointName": "e", "DesiredWeightsAndCapacities": [change]})
    parts.wait_for_endpoint()
    Invoker(parts)()
    assert read_statistics(parts)["InvocationsPerInstance"].total == 1 / 4 + 1 / 2


def test_latencies_are_in_microseconds(parts: ServerParts, model: ImageBehaviour) -> None:
    parts.deploy()
    seconds = 0.05

    def answer(_: ReceivedRequest) -> Reply:
        time.sleep(seconds)
        return Reply()

    model.invoke = answer
    Invoker(parts)()
    statistics = read_statistics(parts)
    assert statistics["ModelLatency"].minimum >= seconds * 1e6
    assert 0 < statistics["OverheadLatency"].maximum < statistics["ModelLatency"].minimum
    units = {series.name: series.unit for series, _ in parts.context.metrics.list_series()}
    assert (units["ModelLatency"], units["OverheadLatency"]) == ("Microseconds", "Microseconds")


def test_statistics_of_a_latency_include_percentiles(parts: ServerParts, model: ImageBehaviour) -> None:  # noqa: ARG001  endpoint `e` serves it
    parts.deploy()
    invoke = Invoker(parts)
    for _ in range(20):
        invoke()
    now = time.time()
    (point,) = CloudWatch(parts.context.metrics).get_metric_statistics(
        {
            "Namespace": "AWS/SageMaker",
            "MetricName": "ModelLatency",
            "Dimensions": [{"Name": "EndpointName", "Value": "e"}, {"Name": "VariantName", "Value": "main"}],
            "StartTime": now - 3600,
            "EndTime": now + 3600,
            "Period": 7200,
            "Statistics": ["SampleCount", "Maximum"],
            "ExtendedStatistics": ["p50", "p99.9"],
        }
    )["Datapoints"]
    percentiles = point["ExtendedStatistics"]
    assert point["SampleCount"] == 20
    assert 0 < percentiles["p50"] <= percentiles["p99.9"] == point["Maximum"]


def test_request_without_a_response_is_a_model_error(parts: ServerParts, model: ImageBehaviour) -> None:
    parts.deploy()

    def end_container(_: ReceivedRequest) -> Reply:
        model.ping = 503
        parts.running_hosts[0].end(Exit(1))
        return Reply()

    model.invoke = end_container
    Invoker(parts).read_model_error()
    statistics = read_statistics(parts)
    assert (statistics["Invocations"].total, statistics["InvocationModelErrors"].total) == (1, 1)
    assert (statistics["Invocation4XXErrors"].total, statistics["Invocation5XXErrors"].total) == (0, 0)


def test_variants_have_their_own_metrics(parts: ServerParts, model: ImageBehaviour) -> None:  # noqa: ARG001  endpoint `e` serves it
    parts.deploy(one={}, two={})
    invoke = Invoker(parts)
    for variant in ("one", "two", "two"):
        invoke(X_Amzn_SageMaker_Target_Variant=variant)
    assert (read_statistics(parts, "one")["Invocations"].total, read_statistics(parts, "two")["Invocations"].total) == (
        1,
        2,
    )


def test_restarted_server_keeps_recorded_metrics(parts: ServerParts, model: ImageBehaviour) -> None:  # noqa: ARG001
    parts.deploy()
    Invoker(parts)()
    parts.context.metrics.flush()
    restarted_parts = parts.restart()
    series = Series("AWS/SageMaker", "Invocations", (("EndpointName", "e"), ("VariantName", "main")))
    assert len(restarted_parts.context.metrics.read(series)) == 1
    restarted_parts.close()
