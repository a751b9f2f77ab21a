"""Tests of the estimated cost and of the real cost of a run."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from microjobs_orchestrator.aws import costs
from microjobs_orchestrator.aws.backend import make_request_context
from microjobs_orchestrator.aws.costs import load_prices
from microjobs_orchestrator.aws.settings import Settings
from microjobs_orchestrator.runs.costs import BilledUsage, CostMeter, FindPrice, format_dollars, measure_usage
from microjobs_orchestrator.runs.journal import Journal
from microjobs_orchestrator.runs.kinds import ENDPOINT, ENDPOINT_CONFIG, PROCESSING, TRAINING, TUNING
from microjobs_orchestrator.runs.planned import RunContext
from microjobs_orchestrator.workflows import housing
from tests.aws.account import IMAGE_URIS
from tests.launcher.cloud import Cloud

START = datetime(2026, 11, 22, tzinfo=UTC)


def make_estimates(settings: Settings) -> list[costs.Estimate]:
    context = make_request_context(settings, IMAGE_URIS.__getitem__)
    requests = housing.plan_requests(RunContext(context, "run"), housing.Options())
    return list(costs.estimate(requests, 60 * settings.max_minutes))


def render_estimates(settings: Settings) -> str:
    screen = io.StringIO()
    context = make_request_context(settings, IMAGE_URIS.__getitem__)
    requests = housing.plan_requests(RunContext(context, "run"), housing.Options())
    costs.print_estimates(Console(file=screen, width=100), settings, requests)
    return screen.getvalue()


def test_estimate_has_every_step_that_starts_instances(settings: Settings) -> None:
    assert [(item.title, item.total_count) for item in make_estimates(settings)] == [
        ("Raw data", 1),
        ("Scaling on 4 hosts", 4),
        ("Training", 1),
        ("Tuning, 6 jobs", 6),
        ("Endpoint", 1),
        ("Batch score", 1),
    ]


def test_serverless_variants_have_no_instances() -> None:
    serverless = {"VariantName": "main", "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}
    assert ENDPOINT_CONFIG.list_instances({"ProductionVariants": [serverless]}) == []


def test_maximum_is_the_cost_until_the_time_limit(settings: Settings) -> None:
    tuning = make_estimates(replace(settings, max_minutes=30))[3]
    assert tuning.compute_max_dollars({"ml.m5.large": 0.2}) == pytest.approx(6 * 0.5 * 0.2)
    assert tuning.compute_expected_dollars({"ml.m5.large": 0.2}) == pytest.approx(6 * 5 / 60 * 0.2)
    assert tuning.compute_max_dollars({}) is None


def test_expected_cost_is_at_most_the_maximum(settings: Settings) -> None:
    for item in make_estimates(replace(settings, max_minutes=1)):
        assert item.compute_expected_dollars({"ml.m5.large": 1.0}) == item.compute_max_dollars({"ml.m5.large": 1.0})


def test_table_shows_steps_and_their_sum(settings: Settings) -> None:
    text = render_estimates(replace(settings, prices={"ml.m5.large": 1.0}))
    assert "6 x ml.m5.large" in text
    assert text.splitlines()[7].split() == ["all", "$1.17", "$14.00"]


def test_unknown_price_is_reported(settings: Settings) -> None:
    text = render_estimates(replace(settings, instance_types={"train": "ml.x9.large"}))
    assert "The price of ml.x9.large in us-east-1 is unknown" in text
    assert "+ ?" in text


def test_other_region_has_only_prices_of_the_settings(settings: Settings) -> None:
    other_settings = replace(settings, region="eu-north-1")
    assert load_prices(other_settings) == {}
    assert load_prices(replace(other_settings, prices={"ml.m5.large": 0.2})) == {"ml.m5.large": 0.2}
    assert load_prices(replace(settings, prices={"ml.m5.large": 0.2}))["ml.m5.xlarge"] == 0.23


# --- usage ---

NO_CLIENT: Any = None


def make_training_description(**members: Any) -> dict[str, Any]:
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 2}
    return {"ResourceConfig": resources, "TrainingStartTime": START, **members}


def test_training_costs_billable_time_times_hosts() -> None:
    description = make_training_description(BillableTimeInSeconds=30, TrainingEndTime=START + timedelta(seconds=100))
    assert measure_usage(NO_CLIENT, TRAINING, description) == BilledUsage("ml.m5.large", 60)


def test_job_without_billable_time_costs_wall_time() -> None:
    description = make_training_description(TrainingEndTime=START + timedelta(seconds=100))
    assert measure_usage(NO_CLIENT, TRAINING, description) == BilledUsage("ml.m5.large", 200)


def test_processing_costs_the_time_from_start_to_end() -> None:
    cluster = {"InstanceType": "ml.c5.large", "InstanceCount": 4}
    job = {"ProcessingResources": {"ClusterConfig": cluster}}
    assert measure_usage(NO_CLIENT, PROCESSING, job) == BilledUsage("ml.c5.large", 0)
    times = {"ProcessingStartTime": START, "ProcessingEndTime": START + timedelta(seconds=9)}
    assert measure_usage(NO_CLIENT, PROCESSING, {**job, **times}) == BilledUsage("ml.c5.large", 36)


def test_running_job_costs_until_now() -> None:
    usage = measure_usage(
        NO_CLIENT, TRAINING, make_training_description(TrainingStartTime=datetime.now(UTC) - timedelta(seconds=50))
    )
    assert usage is not None
    assert 100 <= usage.seconds < 110


@pytest.mark.parametrize(("status", "seconds"), [("InProgress", 6 * 40), ("Completed", 6 * 30)])
def test_tuning_costs_the_sum_of_its_trials(cloud: Cloud, status: str, seconds: float) -> None:
    times = {"TrainingStartTime": START, "TrainingEndTime": START + timedelta(seconds=40)}
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 1}
    for number in range(6):
        job = {"TrainingJobStatus": "Completed", "BillableTimeInSeconds": 30, "ResourceConfig": resources, **times}
        cloud.resources["TrainingJob", f"tune-{number}"] = job
    response = {"TrainingJobSummaries": [{"TrainingJobName": f"tune-{number}", **times} for number in range(6)]}
    cloud.ListTrainingJobsForHyperParameterTuningJob = lambda _members: response  # type: ignore[method-assign, assignment]
    tuning = {
        "HyperParameterTuningJobName": "tune",
        "HyperParameterTuningJobStatus": status,
        "TrainingJobDefinition": {"ResourceConfig": resources},
    }
    assert measure_usage(cloud.make_backend().sagemaker, TUNING, tuning) == BilledUsage("ml.m5.large", seconds)


def test_endpoint_has_no_usage() -> None:
    assert measure_usage(NO_CLIENT, ENDPOINT, {}) is None


def test_prices_are_per_hour() -> None:
    assert BilledUsage("ml.m5.large", 1800).compute_dollars({"ml.m5.large": 0.5}.get) == 0.25
    assert BilledUsage("ml.m5.large", 1800).compute_dollars(lambda _type: None) is None


def test_job_that_ends_before_its_start_costs_nothing() -> None:
    """The clocks of two machines can differ, so that a job seems to end before its start."""
    description = make_training_description(TrainingEndTime=START - timedelta(seconds=100))
    assert measure_usage(NO_CLIENT, TRAINING, description) == BilledUsage("ml.m5.large", 0)


def make_meter(cloud: Cloud, folder: Path, find_price: FindPrice | None) -> CostMeter:
    backend = replace(cloud.make_backend(), find_price=find_price)
    return CostMeter(backend, Journal(folder / "run.json", id="run", workflow="housing", options={}))


def test_endpoint_costs_for_each_instance(cloud: Cloud, tmp_path: Path) -> None:
    meter = make_meter(cloud, tmp_path, {"ml.m5.large": 0.5}.get)
    variant = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 3}
    meter.add_endpoint({"ProductionVariants": [variant]}, 1800)
    assert meter.summarize() == "$0.75 for instances, by the price table"


def test_total_includes_the_running_job_and_names_types_without_a_price(cloud: Cloud, tmp_path: Path) -> None:
    meter = make_meter(cloud, tmp_path, {"ml.m5.large": 0.5}.get)
    description = make_training_description(TrainingEndTime=START + timedelta(seconds=1800))
    meter.add_job(TRAINING, description)
    assert meter.format_total(TRAINING, description) == "$1.00 so far"
    assert meter.format_total(ENDPOINT, {}) == "$0.50 so far"
    unpriced_job = {**description, "ResourceConfig": {"InstanceType": "ml.x1.large", "InstanceCount": 1}}
    assert meter.format_total(TRAINING, unpriced_job) == "$0.50 so far"
    meter.add_job(TRAINING, unpriced_job)
    assert meter.summarize() == "$0.50 for instances, by the price table, plus the unknown cost of ml.x1.large"


def test_costs_are_not_shown_without_prices(cloud: Cloud, tmp_path: Path) -> None:
    meter = make_meter(cloud, tmp_path, None)
    meter.add_job(TRAINING, make_training_description())
    meter.add_endpoint({"ProductionVariants": []}, 1800)
    assert (meter.summarize(), meter.format_total(TRAINING, make_training_description())) == ("", "")


@pytest.mark.parametrize(("amount", "text"), [(0, "$0.00"), (0.0042, "$0.0042"), (0.00001, "$0.00"), (12.3, "$12.30")])
def test_dollars_have_significant_digits(amount: float, text: str) -> None:
    assert format_dollars(amount) == text
