"""Tests in Chromium of the console's list of jobs, endpoints and executions."""

import json
import re

import pytest
from playwright.sync_api import Page, expect

from tests.local.clients import LocalServer
from tests.local.console.checks import find_accessibility_violations


def test_new_job_and_its_status_appear_without_a_reload(page: Page, server: LocalServer, console_url: str) -> None:
    page.goto(console_url)
    page.get_by_role("status").filter(has_text=re.compile("found|shown")).wait_for()
    name = server.start_training("sleep 100")
    row = page.get_by_role("row").filter(has_text=name)
    expect(row).to_contain_text("InProgress")
    server.sagemaker.stop_training_job(TrainingJobName=name)
    expect(row).to_contain_text("Stopped")


def test_filters_choose_kind_status_and_name(page: Page, server: LocalServer, console_url: str) -> None:
    training_job, processing_job = server.train("exit 3"), server.process("true")
    page.goto(console_url)
    failed_row = page.get_by_role("row").filter(has_text=training_job["TrainingJobName"])
    processed_row = page.get_by_role("row").filter(has_text=processing_job["ProcessingJobName"])
    expect(failed_row).to_be_visible()
    expect(processed_row).to_be_visible()
    page.get_by_label("Kind").select_option("training job")
    expect(processed_row).to_have_count(0)
    page.get_by_label("Status").select_option("Failed")
    expect(failed_row).to_be_visible()
    page.get_by_label("Name contains").fill("no such name")
    expect(page.get_by_text("No resource matches.")).to_be_visible()
    page.reload()  # the filters remain, because the address contains them
    expect(page.get_by_label("Status")).to_have_value("Failed")


def test_executions_of_pipelines_are_listed_and_have_a_page(page: Page, server: LocalServer, console_url: str) -> None:
    steps = [{"Name": "stop", "Type": "Fail", "Arguments": {"ErrorMessage": "the data are too old"}}]
    definition = json.dumps({"Version": "2020-12-01", "Steps": steps})
    role = server.address.role_arn
    server.sagemaker.create_pipeline(
        PipelineName="nightly", PipelineDefinition=definition, RoleArn=role, ClientRequestToken="t" * 32
    )
    server.sagemaker.start_pipeline_execution(PipelineName="nightly")
    page.goto(f"{console_url}#/jobs?kind=pipeline-execution")
    row = page.get_by_role("row").filter(has_text="nightly/")
    expect(row).to_contain_text("Failed")
    row.get_by_role("link").click()
    expect(page.get_by_label("Failure reason")).to_contain_text("stop")


def test_arrow_keys_move_between_rows(page: Page, server: LocalServer, console_url: str) -> None:
    for _ in range(2):
        server.process("true")
    page.goto(console_url)
    links = page.locator("tbody a")
    links.nth(1).wait_for()
    links.first.focus()
    page.keyboard.press("ArrowDown")
    expect(links.nth(1)).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(links.first).to_be_focused()


@pytest.mark.parametrize("width", [400, 1280])
def test_page_fits_into_the_window(page: Page, console_url: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(console_url)
    page.locator("table").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_list_is_accessible(page: Page, server: LocalServer, console_url: str) -> None:
    server.process("true")
    page.goto(console_url)
    page.locator("tbody a").first.wait_for()
    assert find_accessibility_violations(page) == []
