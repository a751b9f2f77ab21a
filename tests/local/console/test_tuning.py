"""Tests in Chromium of the console's pages of tuning jobs. The training jobs print their hyperparameters."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import make_image_name
from tests.local.clients import FINAL_STATUSES, LocalServer
from tests.local.console.checks import find_accessibility_violations
from tests.polling import wait_until

TRIAL_COUNT = 101
"""Number of trials. It is larger than a page of a List response."""
RANGES = {
    "ContinuousParameterRanges": [{"Name": "rate", "MinValue": "0.1", "MaxValue": "0.9"}],
    "IntegerParameterRanges": [{"Name": "units", "MinValue": "1", "MaxValue": "100"}],
    "CategoricalParameterRanges": [{"Name": "kind", "Values": ["relu", "tanh"]}],
}


def start_tuning(server: LocalServer, name: str, trial_count: int) -> None:
    """Start a tuning job whose objective is the parameter `rate`."""
    metric = {"Name": "loss", "Regex": r'"rate": "([0-9.e-]+)"'}
    config: dict[str, Any] = {
        "Strategy": "Random",
        "RandomSeed": 1,
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
        "ResourceLimits": {"MaxParallelTrainingJobs": 10, "MaxNumberOfTrainingJobs": trial_count},
        "ParameterRanges": RANGES,
    }
    definition = {
        "AlgorithmSpecification": {
            "TrainingImage": make_image_name("serve"),
            "TrainingInputMode": "File",
            "MetricDefinitions": [metric],
        },
        "OutputDataConfig": {"S3OutputPath": server.uri("models")},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 100},
        "RoleArn": server.address.role_arn,
    }
    server.sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name, HyperParameterTuningJobConfig=config, TrainingJobDefinition=definition
    )


def wait_for_tuning(server: LocalServer, name: str) -> dict[str, Any]:
    describe = server.sagemaker.describe_hyper_parameter_tuning_job
    description: dict[str, Any] = wait_until(
        lambda: describe(HyperParameterTuningJobName=name),
        lambda job: job["HyperParameterTuningJobStatus"] in FINAL_STATUSES,
    )
    return description


@pytest.fixture(scope="module")
def tuning(stub_server: LocalServer) -> dict[str, Any]:
    start_tuning(stub_server, "tune", TRIAL_COUNT)
    return wait_for_tuning(stub_server, "tune")


def test_trials_the_best_one_and_the_importance_of_parameters_are_shown(
    stub_page: Page, stub_server: LocalServer, tuning: dict[str, Any]
) -> None:
    best_trial = tuning["BestTrainingJob"]
    stub_page.goto(f"{stub_server.address.url}/_microjobs/console/#/tuning")
    stub_page.get_by_role("link", name="tune", exact=True).click()
    trials = stub_page.get_by_role("table", name="Trials")
    expect(trials.get_by_role("row")).to_have_count(TRIAL_COUNT + 1)
    expect(trials.locator("tbody tr").first).to_contain_text(best_trial["TrainingJobName"])
    expect(stub_page.get_by_text("Best trial")).to_contain_text(best_trial["TrainingJobName"])
    expect(stub_page.get_by_role("img", name="Curves of loss by trial")).to_have_attribute(
        "aria-label", re.compile("best so far: from 0.1")
    )
    rows = stub_page.get_by_role("table", name="Importance").locator("tbody tr")
    expect(rows.first).to_contain_text(re.compile("rate\\s*1.00"))
    shares = [float(text) for text in rows.locator("td.number").all_inner_texts()]
    assert len(shares) == 3
    assert max(shares[1:]) < 0.4


def test_all_trials_are_compared(stub_page: Page, stub_server: LocalServer, tuning: dict[str, Any]) -> None:
    stub_page.goto(f"{stub_server.address.url}/_microjobs/console/#/tuning/{tuning['HyperParameterTuningJobName']}")
    stub_page.get_by_role("link", name="Compare", exact=True).last.click()
    table = stub_page.get_by_role("table", name="Hyperparameters and final metrics")
    expect(table.get_by_role("row")).to_have_count(TRIAL_COUNT + 1)
    expect(stub_page.locator(".parallel .line")).to_have_count(TRIAL_COUNT)
    expect(stub_page.locator(".parallel .title")).to_contain_text(["kind", "rate", "units", "loss"])
    expect(stub_page.locator(".chart").filter(has_text="loss")).to_contain_text(f"{TRIAL_COUNT} curves")
    links = table.get_by_role("link")
    links.first.focus()
    stub_page.keyboard.press("ArrowDown")
    expect(stub_page.get_by_label("Highlighted run")).to_have_value(links.nth(1).inner_text())
    expect(stub_page.locator(".chart").filter(has_text="loss")).to_contain_text(links.nth(1).inner_text())


def test_nearest_of_many_curves_has_a_label(stub_page: Page, stub_server: LocalServer, tuning: dict[str, Any]) -> None:
    list_trials = stub_server.sagemaker.list_training_jobs_for_hyper_parameter_tuning_job
    trials = list_trials(HyperParameterTuningJobName=tuning["HyperParameterTuningJobName"], MaxResults=20)
    names = ",".join(trial["TrainingJobName"] for trial in trials["TrainingJobSummaries"])
    stub_page.goto(f"{stub_server.address.url}/_microjobs/console/#/compare?jobs={names}&axis=step")
    chart = stub_page.locator(".chart").filter(has_text="loss")
    expect(chart).to_contain_text("20 curves")
    last_values = chart.locator(".legend b")
    expect(last_values).to_have_count(0)
    chart.locator(".u-over").hover()
    expect(last_values).to_have_count(1)


def test_new_trials_appear_without_a_reload(stub_page: Page, stub_server: LocalServer) -> None:
    stub_page.goto(f"{stub_server.address.url}/_microjobs/console/#/tuning")
    start_tuning(stub_server, "live", 5)
    stub_page.get_by_role("link", name="live", exact=True).click()
    expect(stub_page.locator(".actions .status")).to_have_text("Completed")
    expect(stub_page.get_by_role("table", name="Trials").locator("tbody tr")).to_have_count(5)
    assert find_accessibility_violations(stub_page) == []
