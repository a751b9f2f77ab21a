"""Tests in Chromium of the console's page that shows the curves of a job."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.local.clients import LocalServer
from tests.local.console.checks import find_accessibility_violations

ALGORITHM = {"MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}, {"Name": "acc", "Regex": "acc=(\\S+)"}]}

COUNT_PIXELS = """canvas => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let at = 0; at < data.length; at += 4) count += data[at + 3] > 200 && data[at + 2] > data[at] + 80;
    return count;
}"""
"""A function that counts the pixels of a chart that have the blue of the first curve."""


@pytest.fixture(scope="module")
def job_name(server: LocalServer) -> str:
    """The name of a job whose loss decreases by five orders of magnitude, and is 0 once."""
    script = "for i in 1000 10 0 0.01; do echo loss=$i; sleep 1.1; done"
    return str(server.train(script, algorithm=ALGORITHM)["TrainingJobName"])


@pytest.mark.slow
def test_curves_grow_while_the_job_runs(page: Page, server: LocalServer, console_url: str) -> None:
    script = "for i in 4 3 2; do echo loss=$i acc=0.$i; sleep 1.1; done; sleep 3; echo loss=1; sleep 100"
    name = server.start_training(script, algorithm=ALGORITHM)
    page.goto(f"{console_url}#/metrics/training-job/{name}")
    loss = page.get_by_role("img", name="Curves of loss")
    expect(loss).to_have_attribute("aria-label", re.compile("from 2 to 4, last 2"))
    expect(loss).to_have_attribute("aria-label", re.compile("from 1 to 4, last 1"))
    expect(page.get_by_role("img", name="Curves of acc")).to_be_visible()
    server.sagemaker.stop_training_job(TrainingJobName=name)


@pytest.mark.slow
def test_scale_can_be_logarithmic_and_the_page_is_accessible(page: Page, job_name: str, console_url: str) -> None:
    page.goto(f"{console_url}#/metrics/training-job/{job_name}")
    canvas = page.locator(".chart canvas").first
    canvas.wait_for()
    page.wait_for_timeout(300)
    assert canvas.evaluate(COUNT_PIXELS) > 50
    linear_chart = canvas.screenshot()
    page.get_by_label("Logarithmic scale").check()
    expect(page).to_have_url(re.compile("log=1"))
    page.wait_for_timeout(300)
    canvas = page.locator(".chart canvas").first
    assert canvas.evaluate(COUNT_PIXELS) > 50
    assert canvas.screenshot() != linear_chart
    assert find_accessibility_violations(page) == []


def test_curves_are_smoothed_and_zoomed_with_keys(page: Page, job_name: str, console_url: str) -> None:
    page.goto(f"{console_url}#/metrics/training-job/{job_name}")
    chart = page.get_by_role("img", name="Curves of loss")
    chart.focus()
    page.wait_for_timeout(300)
    first_picture = chart.screenshot()
    page.keyboard.press("+")
    page.wait_for_timeout(100)
    assert chart.screenshot() != first_picture
    page.keyboard.press("0")
    page.wait_for_timeout(100)
    assert chart.screenshot() == first_picture
    page.get_by_label("Smoothing").fill("0.9")
    expect(page).to_have_url(re.compile("smooth=0.9"))
    expect(page.get_by_text("Smoothing: 0.9")).to_be_visible()
    page.wait_for_timeout(300)
    assert chart.screenshot() != first_picture


def test_job_without_metrics_says_so(page: Page, server: LocalServer, console_url: str) -> None:
    name = server.train("true")["TrainingJobName"]
    page.goto(f"{console_url}#/metrics/training-job/{name}")
    expect(page.get_by_text("No metric has been recorded.")).to_be_visible()
