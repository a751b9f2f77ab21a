"""The AWS CLI's `sagemaker` commands, with only the variables that `microjobs local env` prints."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local import control
from tests.clients.environments import client_programs
from tests.local.clients import LocalServer, training_request

pytestmark = pytest.mark.engine

Aws = Callable[..., Any]


@pytest.fixture
def aws(local: LocalServer, tmp_path: Path) -> Aws:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        **control.make_environment(local.home, local.address),
    }

    def aws(*arguments: str) -> Any:
        command = [str(client_programs("aws") / "aws"), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.startswith("{") else done.stdout

    return aws


def test_cli_creates_waits_for_and_describes_a_job(aws: Aws, local: LocalServer) -> None:
    request = training_request(local, "echo from the command line")
    created = aws("sagemaker", "create-training-job", "--cli-input-json", json.dumps(request))
    name = created["TrainingJobArn"].rpartition("/")[2]
    local.wait_for_end(name)
    aws("sagemaker", "wait", "training-job-completed-or-stopped", "--training-job-name", name)
    job = aws("sagemaker", "describe-training-job", "--training-job-name", name)
    assert job["TrainingJobStatus"] == "Completed"
    listed = aws("sagemaker", "list-training-jobs", "--name-contains", name)
    assert [item["TrainingJobName"] for item in listed["TrainingJobSummaries"]] == [name]
    assert "model.tar.gz" in aws("s3", "ls", f"{local.uri('models')}/{name}/output/")


def test_cli_reads_the_log(aws: Aws, local: LocalServer) -> None:
    name = local.train("echo first; echo second")["TrainingJobName"]
    found = aws(
        "logs", "filter-log-events", "--log-group-name", "/aws/sagemaker/TrainingJobs", "--log-stream-name-prefix", name
    )
    assert [event["message"] for event in found["events"]] == ["first", "second"]
