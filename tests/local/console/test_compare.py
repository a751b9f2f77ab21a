"""The comparison of training jobs in Chromium."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.local.clients import LocalServer
from tests.local.console.checks import find_violations

ALGORITHM = {"MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}]}
RATES = {"0.1": "0.5", "0.2": "0.25"}
"""Final losses by learning rates."""


@pytest.fixture(scope="module")
def names(server: LocalServer) -> list[str]:
    return [
        server.train(
            f"echo loss=2; sleep 1.2; echo loss={loss}",
            algorithm=ALGORITHM,
            HyperParameters={"rate": rate, "mode": "a"},
        )["TrainingJobName"]
        for rate, loss in RATES.items()
    ]


def test_chosen_jobs_are_compared(page: Page, names: list[str], root: str) -> None:
    page.goto(f"{root}#/compare")
    for name in names:
        page.get_by_label(name, exact=True).check()
    table = page.get_by_role("table", name="Hyperparameters and final metrics")
    for name, (rate, loss) in zip(names, RATES.items(), strict=True):
        expect(table.get_by_role("row").filter(has_text=name).get_by_role("cell")).to_have_text(
            [name, "Completed", "a", rate, loss]
        )
    curves = page.get_by_role("img", name="Curves of loss")
    for name in names:
        expect(curves).to_have_attribute("aria-label", re.compile(f"{name}: from 0"))
    assert find_violations(page) == []


def test_axes_of_the_scatter_plot_can_be_chosen(page: Page, names: list[str], root: str) -> None:
    page.goto(f"{root}#/compare?jobs={','.join(names)}")
    expect(page.get_by_role("img", name="loss by rate")).to_have_attribute(
        "aria-label", f"loss by rate. {names[0]}: 0.1, 0.5; {names[1]}: 0.2, 0.25"
    )
    expect(page.locator(".scatter circle")).to_have_count(2)
    page.get_by_label("Vertical").select_option("rate")
    expect(page.get_by_role("img", name="rate by rate")).to_be_visible()


def test_missing_job_is_reported(page: Page, root: str) -> None:
    page.goto(f"{root}#/compare?jobs=absent")
    expect(page.get_by_role("alert")).to_contain_text("absent")
