"""Tests of the AWS CLI's commands, with only the environment variables that `microjobs local env` prints."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local import control
from tests.clients.environments import install_client_programs
from tests.local.clients import LocalServer, make_training_request

pytestmark = pytest.mark.engine

Aws = Callable[..., Any]


@pytest.fixture
def aws(server: LocalServer, tmp_path: Path) -> Aws:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        **control.make_environment(server.home, server.address),
    }

    def aws(*arguments: str) -> Any:
        command = [str(install_client_programs("aws") / "aws"), *arguments]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout) if result.stdout.startswith("{") else result.stdout

    return aws


def test_cli_creates_waits_for_and_describes_a_job(aws: Aws, server: LocalServer) -> None:
    request = make_training_request(server, "echo from the command line")
    response = aws("sagemaker", "create-training-job", "--cli-input-json", json.dumps(request))
    name = response["TrainingJobArn"].rpartition("/")[2]
    server.wait_for_end(name)
    aws("sagemaker", "wait", "training-job-completed-or-stopped", "--training-job-name", name)
    job = aws("sagemaker", "describe-training-job", "--training-job-name", name)
    assert job["TrainingJobStatus"] == "Completed"
    jobs = aws("sagemaker", "list-training-jobs", "--name-contains", name)
    assert [item["TrainingJobName"] for item in jobs["TrainingJobSummaries"]] == [name]
    assert "model.tar.gz" in aws("s3", "ls", f"{server.uri('models')}/{name}/output/")


def test_cli_reads_the_log(aws: Aws, server: LocalServer) -> None:
    name = server.train("echo first; echo second")["TrainingJobName"]
    response = aws(
        "logs", "filter-log-events", "--log-group-name", "/aws/sagemaker/TrainingJobs", "--log-stream-name-prefix", name
    )
    assert [event["message"] for event in response["events"]] == ["first", "second"]
