"""The pages of tuning jobs in Chromium, with a runtime whose training jobs print their hyperparameters."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import image_name
from tests.local.clients import FINAL_STATUSES, LocalServer, wait_until
from tests.local.console.checks import find_violations

TRIALS = 200
"""More than one page of a List response has."""
RANGES = {
    "ContinuousParameterRanges": [{"Name": "rate", "MinValue": "0.1", "MaxValue": "0.9"}],
    "IntegerParameterRanges": [{"Name": "units", "MinValue": "1", "MaxValue": "100"}],
    "CategoricalParameterRanges": [{"Name": "kind", "Values": ["relu", "tanh"]}],
}


def start_tuning(server: LocalServer, name: str, trials: int) -> None:
    """Start a tuning job whose objective is the parameter `rate`."""
    metric = {"Name": "loss", "Regex": r'"rate": "([0-9.e-]+)"'}
    config: dict[str, Any] = {
        "Strategy": "Random",
        "RandomSeed": 1,
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
        "ResourceLimits": {"MaxParallelTrainingJobs": 10, "MaxNumberOfTrainingJobs": trials},
        "ParameterRanges": RANGES,
    }
    definition = {
        "AlgorithmSpecification": {
            "TrainingImage": image_name("serve"),
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
    found: dict[str, Any] = wait_until(
        lambda: describe(HyperParameterTuningJobName=name),
        lambda job: job["HyperParameterTuningJobStatus"] in FINAL_STATUSES,
    )
    return found


@pytest.fixture(scope="module")
def tuning(stub: LocalServer) -> dict[str, Any]:
    start_tuning(stub, "tune", TRIALS)
    return wait_for_tuning(stub, "tune")


def test_trials_the_best_one_and_the_importance_of_parameters_are_shown(
    console: Page, stub: LocalServer, tuning: dict[str, Any]
) -> None:
    best = tuning["BestTrainingJob"]
    console.goto(f"{stub.address.url}/_microjobs/console/#/tuning")
    console.get_by_role("link", name="tune", exact=True).click()
    trials = console.get_by_role("table", name="Trials")
    expect(trials.get_by_role("row")).to_have_count(TRIALS + 1)
    expect(trials.locator("tbody tr").first).to_contain_text(best["TrainingJobName"])
    expect(console.get_by_text("Best trial")).to_contain_text(best["TrainingJobName"])
    expect(console.get_by_role("img", name="Curves of loss by trial")).to_have_attribute(
        "aria-label", re.compile("best so far: from 0.1")
    )
    rows = console.get_by_role("table", name="Importance").locator("tbody tr")
    expect(rows.first).to_contain_text(re.compile("rate\\s*1.00"))
    shares = [float(text) for text in rows.locator("td.number").all_inner_texts()]
    assert len(shares) == 3
    assert max(shares[1:]) < 0.4


def test_all_trials_are_compared(console: Page, stub: LocalServer, tuning: dict[str, Any]) -> None:
    console.goto(f"{stub.address.url}/_microjobs/console/#/tuning/{tuning['HyperParameterTuningJobName']}")
    console.get_by_role("link", name="Compare", exact=True).last.click()
    table = console.get_by_role("table", name="Hyperparameters and final metrics")
    expect(table.get_by_role("row")).to_have_count(TRIALS + 1)
    expect(console.locator(".parallel .line")).to_have_count(TRIALS)
    expect(console.locator(".parallel .title")).to_contain_text(["kind", "rate", "units", "loss"])
    expect(console.locator(".chart").filter(has_text="loss")).to_contain_text(f"{TRIALS} curves")
    links = table.get_by_role("link")
    links.first.focus()
    console.keyboard.press("ArrowDown")
    expect(console.get_by_label("Highlighted run")).to_have_value(links.nth(1).inner_text())
    expect(console.locator(".chart").filter(has_text="loss")).to_contain_text(links.nth(1).inner_text())


def test_new_trials_appear_without_a_reload(console: Page, stub: LocalServer) -> None:
    console.goto(f"{stub.address.url}/_microjobs/console/#/tuning")
    start_tuning(stub, "live", 5)
    console.get_by_role("link", name="live", exact=True).click()
    expect(console.locator(".actions .status")).to_have_text("Completed")
    expect(console.get_by_role("table", name="Trials").locator("tbody tr")).to_have_count(5)
    assert find_violations(console) == []
