"""Tests of tuning jobs: a boto3 client sends requests to a server that runs the training jobs in containers."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from microjobs.contract import Layout
from tests.conftest import image_from
from tests.local.clients import FINAL_STATUSES, SHELL, LocalServer, training_request, unique, wait_until

pytestmark = pytest.mark.engine

TRAINER = f"""
import json, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
h = json.load(open("{Layout().input_config / "hyperparameters.json"}"))
for score in eval(h["score"]):
    print("val_loss: %f" % score, flush=True)
"""
"""Prints scores that it computes from its hyperparameters `h`. It is the entry point of an image, because the
definition of a tuning job's training jobs cannot contain an entry point."""


@dataclass(frozen=True)
class Tuning:
    """Starts tuning jobs, and returns their descriptions and trials."""

    local: LocalServer
    image: str

    def start(
        self,
        score: str,
        ranges: dict[str, Any],
        jobs: int | None = 4,
        resources_member: str = "ResourceConfig",
        warm_start: dict[str, Any] | None = None,
        name: str | None = None,
        **config: Any,
    ) -> str:
        name, number = name or unique("tune"), {} if jobs is None else {"MaxNumberOfTrainingJobs": jobs}
        objective = {"Type": "Minimize", "MetricName": "val_loss"}
        limits = {"MaxParallelTrainingJobs": 2, **number}
        settings = {"Strategy": "Bayesian", "HyperParameterTuningJobObjective": objective, "ResourceLimits": limits}
        self.local.sagemaker.create_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name,
            HyperParameterTuningJobConfig={**settings, "ParameterRanges": ranges, "RandomSeed": 1, **config},
            TrainingJobDefinition=self._definition(score, resources_member),
            **({"WarmStartConfig": warm_start} if warm_start else {}),
        )
        return name

    def _definition(self, score: str, resources_member: str) -> dict[str, Any]:
        request = training_request(self.local, "")
        del request["TrainingJobName"]
        request[resources_member] = request.pop("ResourceConfig")
        metrics = [{"Name": "val_loss", "Regex": r"val_loss: (\S+)"}]
        algorithm = {"TrainingImage": self.image, "TrainingInputMode": "File", "MetricDefinitions": metrics}
        return request | {"AlgorithmSpecification": algorithm, "StaticHyperParameters": {"score": score}}

    def wait_for_end(self, name: str) -> dict[str, Any]:
        describe = self.local.sagemaker.describe_hyper_parameter_tuning_job
        job: dict[str, Any] = wait_until(
            lambda: describe(HyperParameterTuningJobName=name),
            lambda job: job["HyperParameterTuningJobStatus"] in FINAL_STATUSES,
        )
        return job

    def trials(self, name: str, **options: Any) -> list[dict[str, Any]]:
        pages = self.local.sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
        return list(pages.paginate(HyperParameterTuningJobName=name, **options).search("TrainingJobSummaries[]"))


@pytest.fixture(scope="module")
def tuning(local: LocalServer) -> Iterator[Tuning]:
    with image_from(SHELL, f"ENTRYPOINT {json.dumps(['python3', '-c', TRAINER])}") as name:
        yield Tuning(local, name)


ALL_TYPES = {
    "ContinuousParameterRanges": [
        {"Name": "rate", "MinValue": "0.001", "MaxValue": "0.2", "ScalingType": "Logarithmic"},
        {"Name": "momentum", "MinValue": "0.5", "MaxValue": "0.999", "ScalingType": "ReverseLogarithmic"},
    ],
    "IntegerParameterRanges": [{"Name": "epochs", "MinValue": "10", "MaxValue": "50"}],
    "CategoricalParameterRanges": [{"Name": "optimizer", "Values": ["sgd", "adam"]}],
}


def test_best_of_all_parameter_types_is_found(tuning: Tuning) -> None:
    name = tuning.start('[float(h["rate"])]', ALL_TYPES)
    job = tuning.wait_for_end(name)
    assert job["TrainingJobStatusCounters"]["Completed"] == job["ObjectiveStatusCounters"]["Succeeded"] == 4
    found = tuning.trials(name, SortBy="FinalObjectiveMetricValue", PaginationConfig={"PageSize": 3})
    values = [item["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] for item in found]
    assert len(values) == 4
    assert values == sorted(values)
    assert job["BestTrainingJob"]["TrainingJobName"] == found[0]["TrainingJobName"]
    for item in found:
        tuned = item["TunedHyperParameters"]
        assert 0.001 <= float(tuned["rate"]) <= 0.2
        assert 0.5 <= float(tuned["momentum"]) <= 0.999
        assert 10 <= int(tuned["epochs"]) <= 50
        assert tuned["optimizer"] in ("sgd", "adam")


def test_training_job_describes_its_tuning_job(tuning: Tuning) -> None:
    name = tuning.start("[1]", ALL_TYPES, jobs=1)
    job = tuning.wait_for_end(name)
    training = tuning.local.sagemaker.describe_training_job(TrainingJobName=job["BestTrainingJob"]["TrainingJobName"])
    assert training["TuningJobArn"] == job["HyperParameterTuningJobArn"]
    assert training["HyperParameters"]["_tuning_objective_metric"] == "val_loss"


def test_tuning_resource_config_is_described_as_resource_config(tuning: Tuning) -> None:
    name = tuning.start("[1]", ALL_TYPES, jobs=1, resources_member="HyperParameterTuningResourceConfig")
    job = tuning.local.sagemaker.describe_training_job(
        TrainingJobName=tuning.wait_for_end(name)["BestTrainingJob"]["TrainingJobName"]
    )
    assert job["ResourceConfig"]["InstanceCount"] == 1


ONE_RANGE = {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
CHOICES = {"CategoricalParameterRanges": [{"Name": "a", "Values": ["1", "2"]}, {"Name": "b", "Values": ["3", "4"]}]}


def test_grid_tries_every_combination(tuning: Tuning) -> None:
    name = tuning.start('[int(h["a"]) * int(h["b"])]', CHOICES, jobs=None, Strategy="Grid")
    assert tuning.wait_for_end(name)["HyperParameterTuningJobStatus"] == "Completed"
    tried = sorted(tuple(item["TunedHyperParameters"].values()) for item in tuning.trials(name))
    assert tried == [("1", "3"), ("1", "4"), ("2", "3"), ("2", "4")]


def test_failed_trial_does_not_fail_the_tuning_job(tuning: Tuning) -> None:
    name = tuning.start('[1 / (int(h["a"]) - 1)]', CHOICES, jobs=None, Strategy="Grid")
    job = tuning.wait_for_end(name)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"]["NonRetryableError"] == 2
    assert job["BestTrainingJob"]["TunedHyperParameters"]["a"] == "2"


def test_tuning_job_fails_if_all_trials_fail(tuning: Tuning) -> None:
    job = tuning.wait_for_end(tuning.start("[1 / 0]", CHOICES, jobs=2))
    assert job["HyperParameterTuningJobStatus"] == "Failed"
    assert "All training jobs failed" in job["FailureReason"]


def test_target_ends_the_search(tuning: Tuning) -> None:
    criteria = {"TargetObjectiveMetricValue": 10.0}
    name = tuning.start("[5]", ONE_RANGE, 50, Strategy="Random", TuningJobCompletionCriteria=criteria)
    assert tuning.wait_for_end(name)["HyperParameterTuningJobStatus"] == "Completed"
    assert len(tuning.trials(name)) <= 3


def test_trial_worse_than_the_median_is_stopped_early(tuning: Tuning) -> None:
    good = "[1] * 100"
    bad = "(__import__('time').sleep(1) or 9 for _ in range(20))"
    ranges = {"CategoricalParameterRanges": [{"Name": "a", "Values": ["1", "2", "3", "4"]}]}
    score = f'{bad} if h["a"] == "4" else {good}'
    name = tuning.start(score, ranges, jobs=None, Strategy="Grid", TrainingJobEarlyStoppingType="Auto")
    job = tuning.wait_for_end(name)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"]["Stopped"] == 1
    (stopped,) = tuning.trials(name, StatusEquals="Stopped")
    assert stopped["TunedHyperParameters"]["a"] == "4"


def test_stop_also_stops_training_jobs(tuning: Tuning) -> None:
    name = tuning.start("(__import__('time').sleep(1) or 1 for _ in range(60))", CHOICES, 4, Strategy="Random")
    wait_until(lambda: tuning.trials(name), lambda found: len(found) == 2)
    tuning.local.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    job = tuning.wait_for_end(name)
    assert job["HyperParameterTuningJobStatus"] == "Stopped"
    assert job["TrainingJobStatusCounters"]["InProgress"] == 0


# --- Hyperband ---

SLOW_SCORES = "(__import__('time').sleep(0.3) or {value} for _ in range({epochs}))"
"""Scores for TRAINER, which prints one every 0.3 seconds."""


def hyperband(minimum: int, maximum: int) -> dict[str, Any]:
    resources_member = {"MinResource": minimum, "MaxResource": maximum}
    return {"Strategy": "Hyperband", "StrategyConfig": {"HyperbandStrategyConfig": resources_member}}


def test_hyperband_stops_worse_trials(tuning: Tuning) -> None:
    score = SLOW_SCORES.format(value='float(h["x"])', epochs=9)
    # A fixed name, because the search chooses brackets by the name.
    name = tuning.start(score, ONE_RANGE, 8, name="tune-worse", **hyperband(1, 9))
    job = tuning.wait_for_end(name)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"]["Stopped"] >= 1
    assert job["ObjectiveStatusCounters"]["Succeeded"] == 8
    best = min(tuning.trials(name), key=lambda trial: float(trial["TunedHyperParameters"]["x"]))
    assert best["TrainingJobStatus"] == "Completed"
    assert job["BestTrainingJob"]["TrainingJobName"] == best["TrainingJobName"]


def test_hyperband_stops_trials_after_max_resource(tuning: Tuning) -> None:
    name = tuning.start(SLOW_SCORES.format(value="1", epochs=20), ONE_RANGE, 1, **hyperband(1, 3))
    job = tuning.wait_for_end(name)
    assert job["TrainingJobStatusCounters"]["Stopped"] == 1
    assert job["BestTrainingJob"]["ObjectiveStatus"] == "Succeeded"


# --- warm start ---


def warm_start(*parents: str, kind: str = "IdenticalDataAndAlgorithm") -> dict[str, Any]:
    listed = [{"HyperParameterTuningJobName": parent} for parent in parents]
    return {"ParentHyperParameterTuningJobs": listed, "WarmStartType": kind}


DISTANCE = 'abs(float(h["x"]) - 0.3)'


def test_warm_start_describes_the_best_trial_of_all_parents(tuning: Tuning) -> None:
    parents = [tuning.start(f"[{DISTANCE}]", ONE_RANGE, 6, RandomSeed=seed) for seed in (1, 2)]
    found = [tuning.wait_for_end(parent)["BestTrainingJob"] for parent in parents]
    job = tuning.wait_for_end(tuning.start(f"[{DISTANCE}]", ONE_RANGE, 4, warm_start=warm_start(*parents)))
    assert len(job["WarmStartConfig"]["ParentHyperParameterTuningJobs"]) == 2
    candidates = [*found, job["BestTrainingJob"]]
    best = min(candidates, key=lambda trial: trial["FinalHyperParameterTuningJobObjectiveMetric"]["Value"])
    assert job["OverallBestTrainingJob"]["TrainingJobName"] == best["TrainingJobName"]
    assert job["OverallBestTrainingJob"]["TuningJobName"] == best["TuningJobName"]


def test_transfer_learning_has_no_overall_best(tuning: Tuning) -> None:
    tuning.wait_for_end(parent := tuning.start("[1]", ONE_RANGE, 1))
    config = warm_start(parent, kind="TransferLearning")
    job = tuning.wait_for_end(tuning.start("[2]", ONE_RANGE, 1, warm_start=config))
    assert "OverallBestTrainingJob" not in job


def test_missing_or_running_parent_raises(tuning: Tuning) -> None:
    with pytest.raises(ClientError, match="Could not find hyper parameter tuning job"):
        tuning.start("[1]", ONE_RANGE, warm_start=warm_start("missing"))
    parent = tuning.start(SLOW_SCORES.format(value="1", epochs=20), ONE_RANGE, 1)
    with pytest.raises(ClientError, match="is InProgress: it must have ended"):
        tuning.start("[1]", ONE_RANGE, warm_start=warm_start(parent))
    tuning.local.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=parent)
    tuning.wait_for_end(parent)


def test_incompatible_parent_raises(tuning: Tuning) -> None:
    tuning.wait_for_end(parent := tuning.start("[1]", ONE_RANGE, 1))
    objective = {"Type": "Maximize", "MetricName": "val_loss"}
    for ranges, config, message in (
        (ONE_RANGE, {"HyperParameterTuningJobObjective": objective}, "objective metric must be the same"),
        (ALL_TYPES, {}, "number of static and tunable hyperparameters must be the same"),
        (CHOICES, {"Strategy": "Grid"}, "cannot be used with the strategy Grid"),
    ):
        with pytest.raises(ClientError, match=message):
            tuning.start("[1]", ranges, warm_start=warm_start(parent), **config)
