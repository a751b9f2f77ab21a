"""Tests of tuning jobs that wait for events: they use no CPU time, and each event ends the wait."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.lifecycle.context import Context, Settings
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.logs import LogStore
from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.resources.training.job import TrainingJob
from microjobs_orchestrator.local.resources.tuning.create import create as create_tuning_job
from microjobs_orchestrator.local.resources.tuning.job import TuningJob
from microjobs_orchestrator.local.resources.tuning.results import TrialResults
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.state import Query, Record, State
from tests.local.jobs.fake_programs import FakePrograms
from tests.local.jobs.waiting import WaitingHost, WaitingRuntime
from tests.polling import wait_until

MAX_CPU_SHARE = 0.02
"""Maximum share of one CPU. A job that read 100 trials from the state ten times a second would use more than 0.1."""


class Tuning:
    """The parts of a server with one tuning job."""

    def __init__(self, home: Home) -> None:
        home.create()
        home.credentials()  # the server creates the credentials and the bucket before it starts jobs
        home.server_key()
        (home.buckets / "bucket").mkdir()
        self.runtime = WaitingRuntime()
        store, settings = ObjectStore(home), Settings("http://127.0.0.1:1")
        runtime: Any = self.runtime
        state, logs, metrics = State(home.state), LogStore(home.logs), MetricStore(home.metrics)
        self.context = Context(home, state, store, logs, metrics, runtime, settings, FakePrograms())
        self.registry = Registry(self.context)

    def start(self, trial_count: int, **config: Any) -> None:
        record = create_tuning_job(self.context, make_tuning_request(trial_count, **config))
        self.registry.start(TuningJob(self.context, record, self.registry))
        wait_until(lambda: len(self.runtime.hosts) == trial_count)

    def list_trials(self) -> list[Record]:
        return self.context.state.find(Query("training-job", descending=False, limit=-1))

    def get_host(self, trial: Record) -> WaitingHost:
        return self.runtime.hosts[f"training-job/{trial.name}"]

    def read_status(self) -> str:
        record = self.context.state.get("hyper-parameter-tuning-job", "t")
        assert record is not None
        return record.status

    def close(self) -> None:
        self.registry.shut_down()
        self.context.store.close()
        self.context.state.close()
        self.context.metrics.close()


def make_tuning_request(trial_count: int, **config: Any) -> dict[str, Any]:
    metrics = [{"Name": "loss", "Regex": "loss=([0-9.]+)"}]
    ranges = {"ContinuousParameterRanges": [{"Name": "rate", "MinValue": "0.1", "MaxValue": "1"}]}
    return {
        "HyperParameterTuningJobName": "t",
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": trial_count, "MaxParallelTrainingJobs": trial_count},
            "ParameterRanges": ranges,
            **config,
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {"TrainingImage": "i", "TrainingInputMode": "File", "MetricDefinitions": metrics},
            "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
            "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1},
            "StoppingCondition": {},
            "RoleArn": "role",
        },
    }


def has_loss(tuning: Tuning, trial: Record) -> bool:
    job = tuning.registry.find(f"training-job/{trial.name}")
    assert isinstance(job, TrainingJob)
    return bool(job.metrics.list_points("loss"))


def end_trial(tuning: Tuning, number: int, loss: float) -> None:
    """Let a trial report its loss and end. `number` is its position in `list_trials`."""
    trial = tuning.list_trials()[number]
    tuning.get_host(trial).write(f"loss={loss}")
    wait_until(lambda: has_loss(tuning, trial))
    tuning.get_host(trial).end()
    wait_until(lambda: tuning.list_trials()[number].status == "Completed")


@pytest.fixture
def tuning(tmp_path: Path) -> Iterator[Tuning]:
    parts = Tuning(Home(tmp_path / "home"))
    yield parts
    parts.close()


@pytest.mark.slow
def test_waiting_tuning_job_uses_no_cpu_time(tuning: Tuning) -> None:
    tuning.start(100, TrainingJobEarlyStoppingType="Auto")
    wait_until(lambda: all(trial.description["SecondaryStatus"] == "Training" for trial in tuning.list_trials()))
    time.sleep(0.5)
    cpu_start, start = time.process_time(), time.monotonic()
    time.sleep(2)
    assert (time.process_time() - cpu_start) / (time.monotonic() - start) < MAX_CPU_SHARE


def test_tuning_job_completes_after_its_last_trial(tuning: Tuning) -> None:
    tuning.start(2)
    for trial in tuning.list_trials():
        assert tuning.read_status() == "InProgress"
        tuning.get_host(trial).end()
    wait_until(lambda: tuning.read_status() == "Completed")


def test_next_trial_starts_after_the_end_of_a_trial(tuning: Tuning) -> None:
    tuning.start(2, ResourceLimits={"MaxNumberOfTrainingJobs": 3, "MaxParallelTrainingJobs": 2})
    first_trial = tuning.list_trials()[0]
    tuning.get_host(first_trial).end()
    wait_until(lambda: len(tuning.list_trials()) == 3)
    wait_until(lambda: len(tuning.runtime.hosts) == 2)
    assert tuning.read_status() == "InProgress"


def test_next_trial_starts_while_the_hosts_of_the_last_one_are_removed(tuning: Tuning) -> None:
    tuning.start(1, ResourceLimits={"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 1})
    first_trial, remove, removal = tuning.list_trials()[0], tuning.runtime.remove, threading.Event()

    def remove_later(plan_name: str) -> None:
        if plan_name == f"training-job/{first_trial.name}":
            removal.wait()
        remove(plan_name)

    tuning.runtime.remove = remove_later  # type: ignore[method-assign]
    tuning.get_host(first_trial).end()
    try:
        wait_until(lambda: len(tuning.list_trials()) == 2)
    finally:
        removal.set()


MAXIMIZE = {"HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "loss"}}


@pytest.mark.parametrize(("config", "better_loss", "worse_loss"), [({}, 0.5, 2.0), (MAXIMIZE, 2.0, 0.5)])
def test_trial_worse_than_the_median_is_stopped(
    tuning: Tuning, config: dict[str, Any], better_loss: float, worse_loss: float
) -> None:
    tuning.start(5, TrainingJobEarlyStoppingType="Auto", **config)
    *good_trials, bad_trial, last_trial = tuning.list_trials()
    for number in range(3):
        end_trial(tuning, number, loss=1.0)
    wait_until(lambda: not any(tuning.registry.find(f"training-job/{trial.name}") for trial in good_trials))
    time.sleep(0.2)  # after this time, the tuning job has handled the ends of these trials
    tuning.get_host(last_trial).write(f"loss={better_loss}")
    tuning.get_host(bad_trial).write(f"loss={worse_loss}")
    stopped_names = wait_until(lambda: [trial.name for trial in tuning.list_trials() if trial.status == "Stopped"])
    assert stopped_names == [bad_trial.name]
    assert tuning.read_status() == "InProgress"


def test_stop_stops_a_tuning_job_and_its_trials(tuning: Tuning) -> None:
    tuning.start(3)
    tuning.registry.stop("hyper-parameter-tuning-job/t")
    wait_until(lambda: tuning.read_status() == "Stopped")
    assert [trial.status for trial in tuning.list_trials()] == ["Stopped"] * 3


@pytest.mark.parametrize(
    ("criteria", "losses"),
    [
        ({"TargetObjectiveMetricValue": 1.0}, [2.0, 1.0]),
        ({"BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 2}}, [1.0, 1.5, 1.0]),
    ],
    ids=["target", "no improvement"],
)
def test_completion_criteria_end_a_tuning_job(tuning: Tuning, criteria: dict[str, Any], losses: list[float]) -> None:
    tuning.start(4, TuningJobCompletionCriteria=criteria)
    for number, loss in enumerate(losses):
        assert tuning.read_status() == "InProgress"
        end_trial(tuning, number, loss)
    wait_until(lambda: tuning.read_status() == "Completed")
    statuses = [trial.status for trial in tuning.list_trials()]
    assert statuses == ["Completed"] * len(losses) + ["Stopped"] * (4 - len(losses))


def test_best_trial_has_the_largest_value_of_a_maximized_objective(tuning: Tuning) -> None:
    tuning.start(3, **MAXIMIZE)
    for number, value in enumerate([1.0, 3.0, 2.0]):
        end_trial(tuning, number, value)
    best = TrialResults(tuning.context, make_tuning_request(3, **MAXIMIZE)).find_best_trial()
    assert best is not None
    assert best.name == tuning.list_trials()[1].name


def test_waiting_tuning_job_stops_after_max_runtime(tuning: Tuning) -> None:
    limits = {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1, "MaxRuntimeInSeconds": 1}
    tuning.start(1, ResourceLimits=limits)
    wait_until(lambda: tuning.read_status() == "Stopped")
    assert [trial.status for trial in tuning.list_trials()] == ["Stopped"]


def test_shutdown_ends_a_waiting_tuning_job(tuning: Tuning) -> None:
    tuning.start(2)
    tuning.registry.shut_down()
    assert tuning.read_status() == "Failed"
    assert [trial.status for trial in tuning.list_trials()] == ["Failed"] * 2
