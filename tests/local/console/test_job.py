"""Tests in Chromium of the console's page of a job."""

from playwright.sync_api import Page, expect

from tests.local.clients import LocalServer, make_channel
from tests.local.console.checks import find_accessibility_violations


def test_failed_job_shows_its_reason_first(page: Page, server: LocalServer, console_url: str) -> None:
    name = server.train("echo some output; exit 3")["TrainingJobName"]
    page.goto(f"{console_url}#/jobs/training-job/{name}")
    reason = page.get_by_label("Failure reason")
    expect(reason).to_contain_text("exit code: 3")
    is_first = "element => !!(element.compareDocumentPosition(document.querySelector('h2')) & 4)"
    assert reason.evaluate(is_first)
    assert find_accessibility_violations(page) == []


def test_inputs_outputs_hosts_and_history_are_shown(page: Page, server: LocalServer, console_url: str) -> None:
    server.put({"console/data.csv": "1\n"})
    name = server.train("echo hello", InputDataConfig=[make_channel("train", server.uri("console"))])["TrainingJobName"]
    page.goto(f"{console_url}#/jobs/training-job/{name}")
    expect(page.get_by_role("table", name="Inputs")).to_contain_text(server.uri("console"))
    expect(page.get_by_role("table", name="Outputs")).to_contain_text(f"models/{name}/output/model.tar.gz")
    expect(page.get_by_role("table", name="Hosts")).to_contain_text("algo-1")
    expect(page.get_by_role("table", name="Status history")).to_contain_text("Completed")


def test_running_job_can_be_stopped(page: Page, server: LocalServer, console_url: str) -> None:
    name = server.start_training("sleep 100")
    page.goto(f"{console_url}#/jobs/training-job/{name}")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".actions .status")).to_have_text("Stopped")
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    assert server.describe_training(name)["TrainingJobStatus"] == "Stopped"


def test_model_without_a_status_has_a_page(page: Page, server: LocalServer, console_url: str) -> None:
    server.sagemaker.create_model(
        ModelName="plain", PrimaryContainer={"Image": "serve"}, ExecutionRoleArn=server.address.role_arn
    )
    page.goto(f"{console_url}#/jobs/model/plain")
    expect(page.get_by_role("heading", name="All members")).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)


def test_missing_job_is_reported(page: Page, console_url: str) -> None:
    page.goto(f"{console_url}#/jobs/training-job/absent")
    expect(page.get_by_role("alert")).to_contain_text("Could not find")
