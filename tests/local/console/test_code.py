"""Tests in Chromium of the console's page that shows a resource as code.

`tests/clients/test_console_code.py` runs the code of each kind.
"""

import os
import subprocess
import sys

import pytest
from playwright.sync_api import Page, expect

from microjobs_orchestrator.local import control
from tests.local.clients import LocalServer
from tests.local.console.checks import find_accessibility_violations

SCRIPT = "echo 'it'\"'\"'s \\ \"quoted\" é'"


@pytest.fixture(scope="module")
def job_name(server: LocalServer) -> str:
    return str(server.train(SCRIPT, HyperParameters={"rate": "0.1"})["TrainingJobName"])


def test_code_is_copied_and_creates_the_same_job(
    page: Page, server: LocalServer, job_name: str, console_url: str
) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{console_url}#/jobs/training-job/{job_name}")
    page.get_by_role("link", name="As code").click()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    code = page.evaluate("navigator.clipboard.readText()")
    assert find_accessibility_violations(page) == []
    environment = {**os.environ, **control.make_environment(server.home, server.address)}
    command = [sys.executable, "-c", code.replace(job_name, f"{job_name}-again")]
    subprocess.run(command, env=environment, check=True, timeout=60)
    server.wait_for_end(f"{job_name}-again")
    members = ("AlgorithmSpecification", "HyperParameters", "ResourceConfig", "StoppingCondition", "RoleArn")
    first_job, second_job = (server.describe_training(name) for name in (job_name, f"{job_name}-again"))
    assert {name: first_job[name] for name in members} == {name: second_job[name] for name in members}


def test_arrow_keys_choose_the_client(page: Page, job_name: str, console_url: str) -> None:
    page.goto(f"{console_url}#/code/training-job/{job_name}")
    page.get_by_role("tab", name="boto3").focus()
    for title, text in (
        ("AWS CLI", "aws sagemaker create-training-job"),
        ("SageMaker SDK v3", "TrainingJob.create("),
        ("SageMaker SDK v2", "estimator.fit("),
    ):
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name=title)).to_be_focused()
        expect(page.get_by_role("tabpanel", name=title)).to_contain_text(text)


def test_changed_request_creates_a_new_job(page: Page, server: LocalServer, job_name: str, console_url: str) -> None:
    page.goto(f"{console_url}#/code/training-job/{job_name}")
    request = page.get_by_label("Request")
    request.fill(request.input_value().replace('"0.1"', '"0.7"'))
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name=f"{job_name}-copy")).to_be_visible()
    assert server.wait_for_end(f"{job_name}-copy")["HyperParameters"] == {"rate": "0.7"}
    page.goto(f"{console_url}#/code/training-job/{job_name}")
    page.get_by_label("Request").fill("{")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("JSON")
