"""Tests in Chromium of the console's comparison of training jobs and trial components."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.local.clients import LocalServer
from tests.local.console.checks import find_accessibility_violations
from tests.local.console.shell import Shell
from tests.local.resources.pipelines.steps import create_pipeline, make_training_step, start_execution, wait_for_end

ALGORITHM = {"MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}]}
FINAL_LOSS_BY_RATE = {"0.1": "0.5", "0.2": "0.25"}


@pytest.fixture(scope="module")
def job_names(server: LocalServer) -> list[str]:
    return [
        server.train(
            f"echo loss=2; sleep 1.2; echo loss={loss}",
            algorithm=ALGORITHM,
            HyperParameters={"rate": rate, "mode": "a"},
        )["TrainingJobName"]
        for rate, loss in FINAL_LOSS_BY_RATE.items()
    ]


@pytest.mark.slow
def test_chosen_jobs_are_compared(page: Page, job_names: list[str], console_url: str) -> None:
    page.goto(f"{console_url}#/compare")
    for name in job_names:
        page.get_by_label(name, exact=True).check()
    table = page.get_by_role("table", name="Hyperparameters and final metrics")
    for name, (rate, loss) in zip(job_names, FINAL_LOSS_BY_RATE.items(), strict=True):
        expect(table.get_by_role("row").filter(has_text=name).get_by_role("cell")).to_have_text(
            [name, "Completed", "a", rate, re.compile(r"[0-9.]+"), loss]
        )
    curves = page.get_by_role("img", name="Curves of loss")
    for name in job_names:
        expect(curves).to_have_attribute("aria-label", re.compile(f"{name}: from 0"))
    assert find_accessibility_violations(page) == []


def test_axes_of_the_scatter_plot_can_be_chosen(page: Page, job_names: list[str], console_url: str) -> None:
    page.goto(f"{console_url}#/compare?jobs={','.join(job_names)}")
    expect(page.get_by_role("img", name="loss by rate")).to_have_attribute(
        "aria-label", f"loss by rate. {job_names[0]}: 0.1, 0.5; {job_names[1]}: 0.2, 0.25"
    )
    expect(page.locator(".scatter circle")).to_have_count(2)
    page.get_by_label("Vertical").select_option("rate")
    expect(page.get_by_role("img", name="rate by rate")).to_be_visible()


def test_curves_of_a_running_job_grow(page: Page, server: LocalServer, console_url: str, tmp_path: Path) -> None:
    shell = Shell(server, tmp_path, algorithm=ALGORITHM)
    shell.run("echo loss=4")
    page.goto(f"{console_url}#/compare?jobs={shell.name}")
    curves = page.get_by_role("img", name="Curves of loss")
    expect(curves).to_have_attribute("aria-label", re.compile("last 4"))
    page.wait_for_timeout(1100)  # a second has only one point, its last value: the next value needs another second
    shell.run("echo loss=3")
    expect(curves).to_have_attribute("aria-label", re.compile("from 3 to 4, last 3"))
    shell.stop()
    expect(page.get_by_role("table", name="Hyperparameters and final metrics")).to_contain_text("Stopped")


def test_training_jobs_of_all_executions_are_compared(page: Page, server: LocalServer, console_url: str) -> None:
    pipeline = create_pipeline(server, make_training_step(server, "fit", "true"))
    page.goto(f"{console_url}#/compare?source=pipeline&of={pipeline}")
    expect(page.get_by_text("There are no runs.")).to_be_visible()
    for _ in range(2):
        wait_for_end(server, start_execution(server, pipeline))
    rows = page.get_by_role("table", name="Hyperparameters and final metrics").locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.last).to_contain_text("Completed")


def test_missing_job_is_reported(page: Page, console_url: str) -> None:
    page.goto(f"{console_url}#/compare?jobs=absent")
    expect(page.get_by_role("alert")).to_contain_text("absent")


RUN_COUNT = 5
AXIS_TOP = 46 / 340
"""The upper end of the axes of the parallel coordinates, as a share of the plot's height."""


@pytest.fixture(scope="module")
def experiment(stub_server: LocalServer) -> str:
    """An experiment whose trial components have lower losses at lower rates."""
    sagemaker, metrics = stub_server.sagemaker, stub_server.client("sagemaker-metrics")
    sagemaker.create_experiment(ExperimentName="rates")
    sagemaker.create_trial(TrialName="all", ExperimentName="rates")
    for number in range(RUN_COUNT):
        name = f"run-{number}"
        parameters = {"rate": {"NumberValue": 10.0**-number}, "kind": {"StringValue": ("adam", "sgd")[number % 2]}}
        sagemaker.create_trial_component(TrialComponentName=name, Parameters=parameters)
        sagemaker.associate_trial_component(TrialComponentName=name, TrialName="all")
        points = [
            {"MetricName": "loss", "Timestamp": int(time.time()), "Step": step, "Value": 9.0 - number - step}
            for step in range(3)
        ]
        metrics.batch_put_metrics(TrialComponentName=name, MetricData=points)
    return "rates"


@pytest.fixture
def compare_page(stub_page: Page, stub_server: LocalServer, experiment: str) -> Iterator[Page]:
    """Return a page that compares the trial components of the experiment."""
    page = stub_page.context.new_page()
    page.goto(f"{stub_server.address.url}/_microjobs/console/#/compare")
    page.get_by_role("combobox", name="Runs").select_option("trial components of an experiment")
    page.get_by_role("combobox", name="Experiment").select_option(experiment)
    expect(page.locator(".parallel .line")).to_have_count(RUN_COUNT)
    yield page
    page.close()


def test_trial_components_have_axes_for_categories_and_logarithms(compare_page: Page) -> None:
    expect(compare_page.locator(".parallel .title")).to_contain_text(["kind", "rate (log)", "loss"])
    expect(compare_page.locator(".parallel text", has_text="sgd")).to_be_visible()
    compare_page.locator("summary").press("Enter")
    compare_page.get_by_label("Logarithmic scale of rate").uncheck()
    expect(compare_page.locator(".parallel .title").nth(1)).to_contain_text(re.compile("rate$"))
    compare_page.get_by_label("rate", exact=True).uncheck()
    expect(compare_page.locator(".parallel .title")).to_contain_text(["kind", "loss"])
    compare_page.get_by_label("Horizontal axis").select_option("iteration")
    expect(compare_page.get_by_role("img", name="Curves of loss")).to_have_attribute(
        "aria-label", re.compile("run-0: from 7 to 9, last 7")
    )
    assert find_accessibility_violations(compare_page) == []


def test_pointer_highlights_the_nearest_run(compare_page: Page) -> None:
    plot = compare_page.locator("svg.parallel")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box
    # the mouse points to the largest loss
    compare_page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * AXIS_TOP)
    expect(compare_page.get_by_label("Highlighted run")).to_have_value("run-0")
    expect(compare_page.locator(".parallel .highlighted")).to_have_count(1)
    compare_page.get_by_label("Highlighted run").select_option("run-3")
    expect(compare_page.locator(".scatter .highlighted")).to_have_count(1)


def test_range_is_chosen_with_the_pointer_or_with_keys(compare_page: Page) -> None:
    rows = compare_page.get_by_role("table", name="Hyperparameters and final metrics").locator("tbody tr")
    handle = compare_page.locator('.handle[data-axis="loss"]')
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    assert box
    center = box["x"] + box["width"] / 2
    compare_page.mouse.move(center, box["y"] + box["height"] * 0.6)
    compare_page.mouse.down()
    compare_page.mouse.move(center, box["y"] + box["height"] * 1.1, steps=4)
    compare_page.mouse.up()
    expect(rows).to_have_count(2)
    expect(compare_page.locator(".parallel .other")).to_have_count(3)
    expect(compare_page.locator(".scatter circle")).to_have_count(2)
    compare_page.mouse.click(center, box["y"] + 20)
    expect(rows).to_have_count(RUN_COUNT)
    compare_page.locator("summary").press("Enter")
    compare_page.get_by_label("Lowest loss").fill("5")
    compare_page.keyboard.press("Tab")
    expect(rows).to_have_count(3)
    expect(compare_page.locator(".parallel rect.range")).to_have_attribute("height", "138")  # half of the axis
    compare_page.get_by_label("Category of kind").select_option("sgd")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("run-1")


def test_range_of_a_logarithmic_axis_may_end_below_zero(compare_page: Page) -> None:
    compare_page.locator("summary").press("Enter")
    compare_page.get_by_label("Lowest rate").fill("-1")
    compare_page.get_by_label("Highest rate").fill("0.01")
    compare_page.keyboard.press("Tab")
    expect(compare_page.locator(".parallel rect.range")).to_have_attribute("height", "138")  # half of the axis
    compare_page.get_by_label("Highest rate").fill("-0.5")
    compare_page.keyboard.press("Tab")
    expect(compare_page.locator(".parallel rect.range")).to_have_attribute("height", "2")
