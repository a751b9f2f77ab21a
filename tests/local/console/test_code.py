"""The page with the code of a job in Chromium. The tests run the code."""

import json
import os
import subprocess
import sys

import pytest
from playwright.sync_api import Page, expect

from tests.local.clients import LocalServer
from tests.local.console.checks import find_violations

SCRIPT = "echo 'it'\"'\"'s \\ \"quoted\" é'"


def credentials(server: LocalServer) -> dict[str, str]:
    keys = {
        "AWS_ACCESS_KEY_ID": server.address.access_key_id,
        "AWS_SECRET_ACCESS_KEY": server.address.secret_access_key,
    }
    return {**os.environ, **keys}


@pytest.fixture(scope="module")
def job(server: LocalServer) -> str:
    return str(
        server.train(
            SCRIPT,
            HyperParameters={"rate": "0.1"},
            Environment={"MODE": "a'b"},
            EnableNetworkIsolation=False,
            Tags=[{"Key": "team", "Value": "one"}],
        )["TrainingJobName"]
    )


def describe(server: LocalServer, name: str) -> dict[str, object]:
    """Return the members of a job that its request contains."""
    found = server.describe_training(name)
    names = (
        "AlgorithmSpecification",
        "HyperParameters",
        "Environment",
        "ResourceConfig",
        "StoppingCondition",
        "RoleArn",
    )
    return {member: found[member] for member in names}


def test_code_for_boto3_creates_the_same_job(page: Page, server: LocalServer, job: str, root: str) -> None:
    page.goto(f"{root}#/jobs/training-job/{job}")
    page.get_by_role("link", name="As code").click()
    code = page.get_by_role("region", name="boto3").inner_text()
    assert find_violations(page) == []
    command = [sys.executable, "-c", code.replace(job, f"{job}-again")]
    subprocess.run(command, env=credentials(server), check=True, timeout=60)
    server.wait_for_end(f"{job}-again")
    assert describe(server, f"{job}-again") == describe(server, job)


def test_command_contains_the_whole_request(page: Page, job: str, root: str) -> None:
    page.goto(f"{root}#/code/training-job/{job}")
    command = page.get_by_role("region", name="AWS CLI").inner_text()
    program = "import json, sys; print(json.dumps(sys.argv[1:]))"
    script = f"aws() {{ '{sys.executable}' -c '{program}' \"$@\"; }}\n{command}"
    words = json.loads(subprocess.run(["sh", "-c", script], capture_output=True, check=True, timeout=60).stdout)
    request = json.loads(words[-1])
    assert words[:2] == ["sagemaker", "create-training-job"]
    assert request["AlgorithmSpecification"]["ContainerArguments"] == [SCRIPT]
    assert (request["Environment"], request["Tags"]) == ({"MODE": "a'b"}, [{"Key": "team", "Value": "one"}])


def test_changed_request_creates_a_new_job(page: Page, server: LocalServer, job: str, root: str) -> None:
    page.goto(f"{root}#/code/training-job/{job}")
    request = page.get_by_label("Request")
    request.fill(request.input_value().replace('"0.1"', '"0.7"'))
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name=f"{job}-copy")).to_be_visible()
    assert server.wait_for_end(f"{job}-copy")["HyperParameters"] == {"rate": "0.7"}


def test_invalid_request_is_reported(page: Page, job: str, root: str) -> None:
    page.goto(f"{root}#/code/training-job/{job}")
    page.get_by_label("Request").fill("{")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("JSON")
