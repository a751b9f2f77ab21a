"""SageMaker Metrics: time series of metrics that training code sends for a trial component.

AWS does not document the unit of times in BatchGetMetrics. The server uses seconds since 1970.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Operations_Amazon_SageMaker_Metrics_Service.html
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from math import fsum, sqrt
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.metrics.statistics import is_valid_sample
from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.metrics.tables import Point, Series
from microjobs_orchestrator.local.protocols.results import Service
from microjobs_orchestrator.local.resources.experiments.component_metrics import COMPONENT_NAMESPACE
from microjobs_orchestrator.local.resources.experiments.kinds import TRIAL_COMPONENT
from microjobs_orchestrator.local.resources.training.job import NAMESPACE as TRAINING_NAMESPACE
from microjobs_orchestrator.local.state import State

TRIAL_COMPONENT_KIND = TRIAL_COMPONENT.arn_type
TRAINING_JOB = "training-job"
JOB_KINDS_BY_SUFFIX = {f"-aws-{kind}": kind for kind in (TRAINING_JOB, "processing-job", "transform-job")}
"""Kinds of jobs by the suffix in the name of the trial component that AWS creates for each job."""

ITERATION = "IterationNumber"
PERIOD_SECONDS = {"OneMinute": 60, "FiveMinute": 300, "OneHour": 3600}
MAX_VALUES = 10_000
"""Maximum number of values in the result of a query. The status of a longer result is Truncated."""

Request = Mapping[str, Any]
Response = Mapping[str, Any]
Sample = tuple[int, float, float]
"""The number of the iteration, the time and the value of a point."""


def _compute_deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of a population."""
    mean = fsum(values) / len(values)
    return sqrt(fsum((value - mean) ** 2 for value in values) / len(values))


STATISTICS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "Min": min,
    "Max": max,
    "Avg": lambda values: sum(values) / len(values),
    "Count": len,
    "StdDev": _compute_deviation,
    "Last": lambda values: values[-1],
}


class SageMakerMetrics:
    """The service SageMaker Metrics."""

    def __init__(self, state: State, metrics: MetricStore) -> None:
        self._state = state
        self._metrics = metrics

    def list_handlers(self) -> Service:
        return {"BatchPutMetrics": self.batch_put_metrics, "BatchGetMetrics": self.batch_get_metrics}

    def batch_put_metrics(self, request: Request) -> Response:
        name = request["TrialComponentName"]
        if not self._has_trial_component(name):
            raise ServiceError("ResourceNotFound", f"Trial component {name} does not exist.", 404)
        errors, dimensions = [], {"TrialComponentName": name}
        for index, datum in enumerate(request["MetricData"]):
            values = {datum["MetricName"]: float(datum["Value"])}
            if not is_valid_sample(datum["Value"]):
                errors.append({"Code": "VALIDATION_ERROR", "MetricIndex": index})
                continue
            time, step = float(datum["Timestamp"]), datum.get("Step")
            self._metrics.record(COMPONENT_NAMESPACE, dimensions, values, time, is_exact=True, step=step)
        return {"Errors": errors} if errors else {}

    def _has_trial_component(self, name: str) -> bool:
        """Return whether a trial component exists. Each training, processing and transform job has one."""
        if self._state.get(TRIAL_COMPONENT_KIND, name) is not None:
            return True
        return any(
            name.endswith(suffix) and self._state.get(kind, name.removesuffix(suffix)) is not None
            for suffix, kind in JOB_KINDS_BY_SUFFIX.items()
        )

    def batch_get_metrics(self, request: Request) -> Response:
        return {"MetricQueryResults": [self._answer(query) for query in request["MetricQueries"]]}

    def _answer(self, query: Request) -> Response:
        kind, name = self._find_resource(query["ResourceArn"])
        axis, period = query["XAxisType"], query["Period"]
        if not self._resource_exists(kind, name):
            return _make_error(f"{query['ResourceArn']} is not an existing training job or trial component.")
        if axis == ITERATION and period != ITERATION:
            return _make_error(f"Period {period} needs XAxisType Timestamp, not {axis}.")
        statistic, begin, end = STATISTICS[query["MetricStat"]], query.get("Start"), query.get("End")
        samples = _list_samples(self._list_points(kind, name, query["MetricName"]))
        values = {
            x: statistic(group)
            for x, group in _group_values(samples, axis, period).items()
            if (begin is None or x >= begin) and (end is None or x < end)
        }
        x_values = sorted(values)[:MAX_VALUES]
        status = "Complete" if len(x_values) == len(values) else "Truncated"
        return {"Status": status, "XAxisValues": x_values, "MetricValues": [float(values[x]) for x in x_values]}

    def _find_resource(self, arn: str) -> tuple[str, str]:
        """Return the kind and the name of a resource. The trial components of jobs have no record."""
        record = self._state.get_by_arn(arn)
        kind, _, name = arn.split(":", 5)[5].partition("/")
        return (record.kind, record.name) if record else (kind, name)

    def _resource_exists(self, kind: str, name: str) -> bool:
        if kind == TRIAL_COMPONENT_KIND:
            return self._has_trial_component(name)
        return kind == TRAINING_JOB and self._state.get(kind, name) is not None

    def _list_points(self, kind: str, name: str, metric: str) -> list[Point]:
        """Return the points that clients sent for a resource, and the points in the log of a training job."""
        trial_component = name if kind == TRIAL_COMPONENT_KIND else f"{name}-aws-{TRAINING_JOB}"
        dimensions = (("TrialComponentName", trial_component),)
        points = self._metrics.read(Series(COMPONENT_NAMESPACE, metric, dimensions))
        if trial_component.endswith(f"-aws-{TRAINING_JOB}"):
            job = trial_component.removesuffix(f"-aws-{TRAINING_JOB}")
            points += self._metrics.read(Series(TRAINING_NAMESPACE, metric, (("TrainingJobName", job),)))
        return sorted(points, key=lambda point: point.time)


def _list_samples(points: Iterable[Point]) -> list[Sample]:
    """Return the samples of points that are sorted by time. If a point has no iteration, its position in the list
    replaces the iteration."""
    return [
        (position if point.step is None else point.step, point.time, point.statistics.average)
        for position, point in enumerate(points)
    ]


def _group_values(samples: Sequence[Sample], axis: str, period: str) -> Mapping[int, Sequence[float]]:
    """Return the metric's values by x: an iteration, or a time in seconds since 1970.

    If iterations are shown on an axis of times, the x of an iteration is the time of its first value.
    """

    def get_key(sample: Sample) -> int:
        iteration, time, _ = sample
        return iteration if period == ITERATION else int(time // PERIOD_SECONDS[period] * PERIOD_SECONDS[period])

    values_by_x: dict[int, list[float]] = {}
    for key, group in groupby(sorted(samples, key=get_key), key=get_key):
        items = list(group)
        _, first_time, _ = items[0]
        x = int(first_time) if axis != ITERATION and period == ITERATION else key
        values_by_x.setdefault(x, []).extend(value for _, _, value in items)
    return values_by_x


def _make_error(message: str) -> Response:
    return {"Status": "ValidationError", "Message": message, "XAxisValues": [], "MetricValues": []}
