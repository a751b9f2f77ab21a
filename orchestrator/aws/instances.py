"""Instances that planned requests start."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from microjobs_orchestrator.runs.kinds import Members
from microjobs_orchestrator.runs.planned import PlannedRequest


@dataclass(frozen=True)
class Instances:
    """The instances of one planned request."""

    title: str
    use: str
    """As names of quotas have it: `processing job`, `training job` or `endpoint`."""
    instance_type: str
    total: int
    """All instances, whether they run at the same time or not."""
    concurrent: int
    """Instances that run at the same time."""
    max_seconds: float | None
    """The time limit of each instance; None if the request has none."""


def planned_instances(requests: Iterable[PlannedRequest]) -> Iterator[Instances]:
    """Yield the instances of each request that starts some."""
    for planned in requests:
        if planned.operation in READERS:
            yield READERS[planned.operation](planned.title, planned.request)


def _processing(title: str, request: Members) -> Instances:
    return _job(title, "processing job", request["ProcessingResources"]["ClusterConfig"], request)


def _training(title: str, request: Members) -> Instances:
    return _job(title, "training job", request["ResourceConfig"], request)


def _tuning(title: str, request: Members) -> Instances:
    limits, definition = request["HyperParameterTuningJobConfig"]["ResourceLimits"], request["TrainingJobDefinition"]
    total, concurrent = limits["MaxNumberOfTrainingJobs"], limits["MaxParallelTrainingJobs"]
    title = f"{title}, {total} jobs"
    return _job(title, "training job", definition["ResourceConfig"], definition, total, concurrent)


def _job(title: str, use: str, resources: Members, request: Members, total: int = 1, concurrent: int = 1) -> Instances:
    seconds, hosts = request["StoppingCondition"]["MaxRuntimeInSeconds"], resources["InstanceCount"]
    return Instances(title, use, resources["InstanceType"], total * hosts, concurrent * hosts, seconds)


def _endpoint(_title: str, request: Members) -> Instances:
    [variant] = request["ProductionVariants"]
    count = variant["InitialInstanceCount"]
    return Instances("Endpoint", "endpoint", variant["InstanceType"], count, count, None)


READERS = {
    "CreateProcessingJob": _processing,
    "CreateTrainingJob": _training,
    "CreateHyperParameterTuningJob": _tuning,
    "CreateEndpointConfig": _endpoint,
}
"""The operations that start instances."""
