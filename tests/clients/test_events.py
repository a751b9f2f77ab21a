"""Tests of programs that receive the EventBridge events of jobs from SQS queues."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.environments import run_program
from tests.conftest import REPOSITORY, make_image_name
from tests.local.clients import SHELL_IMAGE, LocalServer, run_server

PAGE = (REPOSITORY / "docs" / "using" / "events.md").read_text(encoding="utf-8")
PATTERN = {"detail-type": ["SageMaker Training Job State Change"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    targets = [{"queue": queue, "pattern": PATTERN} for queue in ("job-events", "program")]
    with run_server(tmp_path_factory.mktemp("events") / "home", runtime="process", events=targets) as server:
        yield server


@pytest.mark.slow
def test_program_receives_the_events_that_aws_documents(server: LocalServer, tmp_path: Path) -> None:
    lines = run_program(
        "boto3", server, tmp_path, "events_boto3.py", "program", make_image_name(SHELL_IMAGE), server.address.bucket
    )
    expected = {
        "type": "SageMaker Training Job State Change",
        "members": ["account", "detail", "detail-type", "id", "region", "resources", "source", "time", "version"],
        "source": "aws.sagemaker",
        "tags": {"team": "blue"},
        **dict.fromkeys(("isUnique", "reasonMatches", "historyMatches", "timeMatches"), True),
    }
    jobs = [{**expected, "status": status} for status in ("Completed", "Failed")]
    assert json.loads(lines[-1]) == {"jobs": jobs, "isEmpty": True, "queues": []}, "\n".join(lines)


def test_program_of_the_page_prints_the_statuses_of_a_job(server: LocalServer, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "program.py").write_text(program)
    job = server.train("exit 0")
    lines = run_program("boto3", server, tmp_path, str(tmp_path / "program.py"), job["TrainingJobName"])
    assert [line.split()[1] for line in lines] == [change["Status"] for change in job["SecondaryStatusTransitions"]]
    assert lines[-1] == "Completed Completed"
