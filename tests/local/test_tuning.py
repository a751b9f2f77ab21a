"""Tests of tuning jobs: a boto3 client sends requests to a server that runs the training jobs in containers."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from microjobs.contract import Layout
from tests.conftest import build_image_from_job
from tests.local.clients import (
    FINAL_STATUSES,
    SHELL_IMAGE,
    LocalServer,
    make_training_request,
    make_unique_name,
)
from tests.polling import wait_until

pytestmark = pytest.mark.engine

TRAINER_PROGRAM = f"""
import json, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
h = json.load(open("{Layout().input_config / "hyperparameters.json"}"))
for score in eval(h["score"]):
    print("val_loss: %f" % score, flush=True)
"""
"""Prints scores that it computes from its hyperparameters `h`. It is the entry point of an image, because the
definition of a tuning job's training jobs cannot contain an entry point."""


@dataclass(frozen=True)
class TuningClient:
    """A client that starts tuning jobs, and reads their descriptions and trials."""

    server: LocalServer
    image: str

    def start(
        self,
        score: str,
        ranges: dict[str, Any],
        job_count: int | None = 4,
        resources_member: str = "ResourceConfig",
        warm_start: dict[str, Any] | None = None,
        name: str | None = None,
        **config: Any,
    ) -> str:
        """Start a tuning job, and return its name.

        Args:
            score: a Python expression for the scores that a trial prints; `h` contains the trial's hyperparameters.
            resources_member: the name of the member for the instances of a trial.
            config: members of HyperParameterTuningJobConfig.
        """
        name, max_jobs = (
            name or make_unique_name("tune"),
            {} if job_count is None else {"MaxNumberOfTrainingJobs": job_count},
        )
        objective = {"Type": "Minimize", "MetricName": "val_loss"}
        limits = {"MaxParallelTrainingJobs": 2, **max_jobs}
        settings = {"Strategy": "Bayesian", "HyperParameterTuningJobObjective": objective, "ResourceLimits": limits}
        self.server.sagemaker.create_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name,
            HyperParameterTuningJobConfig={**settings, "ParameterRanges": ranges, "RandomSeed": 1, **config},
            TrainingJobDefinition=self._make_definition(score, resources_member),
            **({"WarmStartConfig": warm_start} if warm_start else {}),
        )
        return name

    def _make_definition(self, score: str, resources_member: str) -> dict[str, Any]:
        request = make_training_request(self.server, "")
        del request["TrainingJobName"]
        request[resources_member] = request.pop("ResourceConfig")
        metrics = [{"Name": "val_loss", "Regex": r"val_loss: (\S+)"}]
        algorithm = {"TrainingImage": self.image, "TrainingInputMode": "File", "MetricDefinitions": metrics}
        return request | {"AlgorithmSpecification": algorithm, "StaticHyperParameters": {"score": score}}

    def wait_for_end(self, name: str) -> dict[str, Any]:
        describe = self.server.sagemaker.describe_hyper_parameter_tuning_job
        job: dict[str, Any] = wait_until(
            lambda: describe(HyperParameterTuningJobName=name),
            lambda job: job["HyperParameterTuningJobStatus"] in FINAL_STATUSES,
        )
        return job

    def list_trials(self, name: str, **options: Any) -> list[dict[str, Any]]:
        pages = self.server.sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
        return list(pages.paginate(HyperParameterTuningJobName=name, **options).search("TrainingJobSummaries[]"))


@pytest.fixture(scope="module")
def tuning(server: LocalServer) -> Iterator[TuningClient]:
    with build_image_from_job(SHELL_IMAGE, f"ENTRYPOINT {json.dumps(['python3', '-c', TRAINER_PROGRAM])}") as name:
        yield TuningClient(server, name)


RANGES_OF_ALL_TYPES = {
    "ContinuousParameterRanges": [
        {"Name": "rate", "MinValue": "0.001", "MaxValue": "0.2", "ScalingType": "Logarithmic"},
        {"Name": "momentum", "MinValue": "0.5", "MaxValue": "0.999", "ScalingType": "ReverseLogarithmic"},
    ],
    "IntegerParameterRanges": [{"Name": "epochs", "MinValue": "10", "MaxValue": "50"}],
    "CategoricalParameterRanges": [{"Name": "optimizer", "Values": ["sgd", "adam"]}],
}


def test_best_trial_is_found_with_parameters_of_all_types(tuning: TuningClient) -> None:
    name = tuning.start('[float(h["rate"])]', RANGES_OF_ALL_TYPES)
    job = tuning.wait_for_end(name)
    assert job["TrainingJobStatusCounters"]["Completed"] == job["ObjectiveStatusCounters"]["Succeeded"] == 4
    trials = tuning.list_trials(name, SortBy="FinalObjectiveMetricValue", PaginationConfig={"PageSize": 3})
    values = [trial["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] for trial in trials]
    assert len(values) == 4
    assert values == sorted(values)
    assert job["BestTrainingJob"]["TrainingJobName"] == trials[0]["TrainingJobName"]
    for trial in trials:
        hyperparameters = trial["TunedHyperParameters"]
        assert 0.001 <= float(hyperparameters["rate"]) <= 0.2
        assert 0.5 <= float(hyperparameters["momentum"]) <= 0.999
        assert 10 <= int(hyperparameters["epochs"]) <= 50
        assert hyperparameters["optimizer"] in ("sgd", "adam")


def test_training_job_describes_its_tuning_job(tuning: TuningClient) -> None:
    name = tuning.start("[1]", RANGES_OF_ALL_TYPES, job_count=1)
    job = tuning.wait_for_end(name)
    training = tuning.server.sagemaker.describe_training_job(TrainingJobName=job["BestTrainingJob"]["TrainingJobName"])
    assert training["TuningJobArn"] == job["HyperParameterTuningJobArn"]
    assert training["HyperParameters"]["_tuning_objective_metric"] == "val_loss"


def test_tuning_resource_config_is_described_as_resource_config(tuning: TuningClient) -> None:
    name = tuning.start("[1]", RANGES_OF_ALL_TYPES, job_count=1, resources_member="HyperParameterTuningResourceConfig")
    job = tuning.server.sagemaker.describe_training_job(
        TrainingJobName=tuning.wait_for_end(name)["BestTrainingJob"]["TrainingJobName"]
    )
    assert job["ResourceConfig"]["InstanceCount"] == 1


ONE_RANGE = {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
CATEGORICAL_RANGES = {
    "CategoricalParameterRanges": [{"Name": "a", "Values": ["1", "2"]}, {"Name": "b", "Values": ["3", "4"]}]
}


def test_grid_tries_every_combination(tuning: TuningClient) -> None:
    name = tuning.start('[int(h["a"]) * int(h["b"])]', CATEGORICAL_RANGES, job_count=None, Strategy="Grid")
    assert tuning.wait_for_end(name)["HyperParameterTuningJobStatus"] == "Completed"
    combinations = sorted(tuple(item["TunedHyperParameters"].values()) for item in tuning.list_trials(name))
    assert combinations == [("1", "3"), ("1", "4"), ("2", "3"), ("2", "4")]


def test_failed_trial_does_not_fail_the_tuning_job(tuning: TuningClient) -> None:
    name = tuning.start('[1 / (int(h["a"]) - 1)]', CATEGORICAL_RANGES, job_count=None, Strategy="Grid")
    job = tuning.wait_for_end(name)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"]["NonRetryableError"] == 2
    assert job["BestTrainingJob"]["TunedHyperParameters"]["a"] == "2"


def test_tuning_job_fails_if_all_trials_fail(tuning: TuningClient) -> None:
    job = tuning.wait_for_end(tuning.start("[1 / 0]", CATEGORICAL_RANGES, job_count=2))
    assert job["HyperParameterTuningJobStatus"] == "Failed"
    assert "All training jobs failed" in job["FailureReason"]


def test_target_ends_the_search(tuning: TuningClient) -> None:
    criteria = {"TargetObjectiveMetricValue": 10.0}
    name = tuning.start("[5]", ONE_RANGE, job_count=50, Strategy="Random", TuningJobCompletionCriteria=criteria)
    assert tuning.wait_for_end(name)["HyperParameterTuningJobStatus"] == "Completed"
    assert len(tuning.list_trials(name)) <= 3


def test_trial_worse_than_the_median_is_stopped_early(tuning: TuningClient) -> None:
    good_scores = "[1] * 100"
    bad_scores = "(__import__('time').sleep(1) or 9 for _ in range(20))"
    ranges = {"CategoricalParameterRanges": [{"Name": "a", "Values": ["1", "2", "3", "4"]}]}
    score = f'{bad_scores} if h["a"] == "4" else {good_scores}'
    name = tuning.start(score, ranges, job_count=None, Strategy="Grid", TrainingJobEarlyStoppingType="Auto")
    job = tuning.wait_for_end(name)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"]["Stopped"] == 1
    (stopped_trial,) = tuning.list_trials(name, StatusEquals="Stopped")
    assert stopped_trial["TunedHyperParameters"]["a"] == "4"


def test_stop_also_stops_training_jobs(tuning: TuningClient) -> None:
    name = tuning.start(
        "(__import__('time').sleep(1) or 1 for _ in range(60))", CATEGORICAL_RANGES, job_count=4, Strategy="Random"
    )
    wait_until(lambda: tuning.list_trials(name), lambda trials: len(trials) == 2)
    tuning.server.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    job = tuning.wait_for_end(name)
    assert job["HyperParameterTuningJobStatus"] == "Stopped"
    assert job["TrainingJobStatusCounters"]["InProgress"] == 0


# --- Hyperband ---

SLOW_SCORES = "(__import__('time').sleep(0.3) or {value} for _ in range({epochs}))"
"""Template of an expression for TRAINER_PROGRAM, which then prints one score every 0.3 seconds."""


def make_hyperband_config(minimum: int, maximum: int) -> dict[str, Any]:
    limits = {"MinResource": minimum, "MaxResource": maximum}
    return {"Strategy": "Hyperband", "StrategyConfig": {"HyperbandStrategyConfig": limits}}


def test_hyperband_stops_worse_trials(tuning: TuningClient) -> None:
    score = SLOW_SCORES.format(value='float(h["x"])', epochs=9)
    # The name is fixed, because the search chooses Hyperband's brackets by the name.
    name = tuning.start(score, ONE_RANGE, job_count=8, name="tune-worse", **make_hyperband_config(1, 9))
    job = tuning.wait_for_end(name)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"]["Stopped"] >= 1
    assert job["ObjectiveStatusCounters"]["Succeeded"] == 8
    best_trial = min(tuning.list_trials(name), key=lambda trial: float(trial["TunedHyperParameters"]["x"]))
    assert best_trial["TrainingJobStatus"] == "Completed"
    assert job["BestTrainingJob"]["TrainingJobName"] == best_trial["TrainingJobName"]


def test_hyperband_stops_trials_after_max_resource(tuning: TuningClient) -> None:
    name = tuning.start(SLOW_SCORES.format(value="1", epochs=20), ONE_RANGE, job_count=1, **make_hyperband_config(1, 3))
    job = tuning.wait_for_end(name)
    assert job["TrainingJobStatusCounters"]["Stopped"] == 1
    assert job["BestTrainingJob"]["ObjectiveStatus"] == "Succeeded"


# --- warm start ---


def make_warm_start(*parents: str, warm_start_type: str = "IdenticalDataAndAlgorithm") -> dict[str, Any]:
    parent_jobs = [{"HyperParameterTuningJobName": parent} for parent in parents]
    return {"ParentHyperParameterTuningJobs": parent_jobs, "WarmStartType": warm_start_type}


DISTANCE = 'abs(float(h["x"]) - 0.3)'


def test_warm_start_describes_the_best_trial_of_all_parents(tuning: TuningClient) -> None:
    parents = [tuning.start(f"[{DISTANCE}]", ONE_RANGE, job_count=6, RandomSeed=seed) for seed in (1, 2)]
    parent_trials = [tuning.wait_for_end(parent)["BestTrainingJob"] for parent in parents]
    job = tuning.wait_for_end(
        tuning.start(f"[{DISTANCE}]", ONE_RANGE, job_count=4, warm_start=make_warm_start(*parents))
    )
    assert len(job["WarmStartConfig"]["ParentHyperParameterTuningJobs"]) == 2
    candidates = [*parent_trials, job["BestTrainingJob"]]
    best_trial = min(candidates, key=lambda trial: trial["FinalHyperParameterTuningJobObjectiveMetric"]["Value"])
    assert job["OverallBestTrainingJob"]["TrainingJobName"] == best_trial["TrainingJobName"]
    assert job["OverallBestTrainingJob"]["TuningJobName"] == best_trial["TuningJobName"]


def test_transfer_learning_has_no_overall_best(tuning: TuningClient) -> None:
    tuning.wait_for_end(parent := tuning.start("[1]", ONE_RANGE, job_count=1))
    config = make_warm_start(parent, warm_start_type="TransferLearning")
    job = tuning.wait_for_end(tuning.start("[2]", ONE_RANGE, job_count=1, warm_start=config))
    assert "OverallBestTrainingJob" not in job


def test_missing_or_running_parent_raises(tuning: TuningClient) -> None:
    with pytest.raises(ClientError, match="Could not find hyper parameter tuning job"):
        tuning.start("[1]", ONE_RANGE, warm_start=make_warm_start("missing"))
    parent = tuning.start(SLOW_SCORES.format(value="1", epochs=20), ONE_RANGE, job_count=1)
    with pytest.raises(ClientError, match="is InProgress: it must have ended"):
        tuning.start("[1]", ONE_RANGE, warm_start=make_warm_start(parent))
    tuning.server.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=parent)
    tuning.wait_for_end(parent)


def test_incompatible_parent_raises(tuning: TuningClient) -> None:
    tuning.wait_for_end(parent := tuning.start("[1]", ONE_RANGE, job_count=1))
    objective = {"Type": "Maximize", "MetricName": "val_loss"}
    for ranges, config, message in (
        (ONE_RANGE, {"HyperParameterTuningJobObjective": objective}, "objective metric must be the same"),
        (RANGES_OF_ALL_TYPES, {}, "number of static and tunable hyperparameters must be the same"),
        (CATEGORICAL_RANGES, {"Strategy": "Grid"}, "cannot be used with the strategy Grid"),
    ):
        with pytest.raises(ClientError, match=message):
            tuning.start("[1]", ranges, warm_start=make_warm_start(parent), **config)
