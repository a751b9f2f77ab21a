"""Tests of docs/using/aws.md: a test runs the page's commands in order; the account is empty before and after.

The local server replaces SageMaker, and moto simulates the other services. This test runs `microjobs run` with
`--dry-run`; `test_account` runs it without this flag.
"""

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from microjobs_orchestrator import workflows
from microjobs_orchestrator.aws import settings
from microjobs_orchestrator.aws.settings import Settings
from microjobs_orchestrator.cli import make_parser
from microjobs_orchestrator.local import control
from tests.clients.environments import install_client_programs
from tests.conftest import REPOSITORY
from tests.local.clients import LocalServer, run_server

# moto warns that it does not create bucket policies.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse AWS..S3..BucketPolicy")

PAGE = (REPOSITORY / "docs" / "using" / "aws.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^ {4}((?:microjobs|aws) .*)$", PAGE, re.MULTILINE)
TABLES = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SAGEMAKER_COMMAND_PATTERN = re.compile(r"microjobs (ps|logs|stop)|aws sagemaker ")
"""Matches the beginning of a command that SageMaker answers."""


class PageFolder:
    """The folder in which the tests run the commands of the page."""

    def __init__(self, folder: Path, server: LocalServer, moto_url: str) -> None:
        self.folder = folder
        programs = [str(Path(sys.executable).parent), str(install_client_programs("aws"))]
        variables = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MICROJOBS"))}
        self.base_environment = {
            **variables,
            "PATH": os.pathsep.join([*programs, variables["PATH"]]),
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self.sagemaker_environment = {**self.base_environment, **control.make_environment(server.home, server.address)}
        moto_variables = {"AWS_ENDPOINT_URL": moto_url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        self.moto_environment = {**self.base_environment, **moto_variables}

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        if command.startswith("microjobs run"):  # this command runs with neither credentials nor a network
            command, environment = f"{command} --dry-run", self.base_environment
        else:
            environment = (
                self.sagemaker_environment if SAGEMAKER_COMMAND_PATTERN.match(command) else self.moto_environment
            )
        return subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture
def moto_url() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    with urllib.request.urlopen(f"{url}/moto-api/reset", data=b""):  # all tests of this process share moto's account
        yield url
    server.stop()


@pytest.fixture
def page_folder(tmp_path: Path, moto_url: str) -> Iterator[PageFolder]:
    (tmp_path / "microjobs.toml").write_text(TABLES[0])
    with run_server(tmp_path / "local", runtime="process") as server:
        (server.home.buckets / settings.load(tmp_path / "microjobs.toml").bucket).mkdir()
        yield PageFolder(tmp_path, server, moto_url)


IMAGE_COMMANDS = ("microjobs build", "microjobs push")
"""Commands that need an engine: `tests/push` runs them."""

DOCTOR_OUTPUT = [
    "✓ credentials of arn:aws",
    "✓ role microjobs-us-east-1, which SageMaker may assume",
    "✓ bucket microjobs-123456789012-us-east-1 in us-east-1",
    "✗ the image of serve was not pushed from ",
]
EXPECTED_RESULTS: dict[str, tuple[int, list[str]]] = {
    "microjobs doctor": (1, DOCTOR_OUTPUT),
    "microjobs logs": (2, []),  # no run has that name
}
"""Exit code and texts of the output, by the beginning of the command. Other commands must end with exit code 0."""


@pytest.mark.slow
def test_commands_of_the_page_work_and_clean_up(page_folder: PageFolder, moto_url: str) -> None:
    for group in ("TrainingJobs", "ProcessingJobs", "Endpoints/ENDPOINT"):  # on AWS, SageMaker creates these log groups
        make_client(moto_url, "logs").create_log_group(logGroupName=f"/aws/sagemaker/{group}")
    for command in (command for command in COMMANDS if not command.startswith(IMAGE_COMMANDS)):
        result = page_folder.run(command)
        code, texts = next((item for start, item in EXPECTED_RESULTS.items() if command.startswith(start)), (0, []))
        assert result.returncode == code, f"{command}: {result.stdout}{result.stderr}"
        assert [text for text in texts if text not in result.stdout] == []
    assert list_resources(moto_url) == []


def make_client(moto_url: str, service: str) -> Any:
    session: Any = boto3.Session("key", "secret", region_name="us-east-1")
    return session.client(service, endpoint_url=moto_url)


def list_resources(moto_url: str) -> list[str]:
    """Return the resources of the account."""
    buckets = make_client(moto_url, "s3").list_buckets()["Buckets"]
    repositories = make_client(moto_url, "ecr").describe_repositories()["repositories"]
    roles = make_client(moto_url, "iam").list_roles()["Roles"]
    groups = make_client(moto_url, "logs").describe_log_groups()["logGroups"]
    return [
        *(group["logGroupName"] for group in groups),
        *(bucket["Name"] for bucket in buckets),
        *(repository["repositoryName"] for repository in repositories),
        *(role["RoleName"] for role in roles),
    ]


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("microjobs")])
def test_commands_are_parsed(command: str) -> None:
    make_parser().parse_args(command.split()[1:])


@pytest.mark.parametrize("table", TABLES)
def test_settings_of_the_page_are_valid(table: str, tmp_path: Path) -> None:
    (tmp_path / "microjobs.toml").write_text(table)
    page_settings = settings.load(tmp_path / "microjobs.toml")
    assert settings.find_problems(page_settings, workflows.list_steps()) == []
    assert page_settings.account == "123456789012"


def test_page_shows_every_setting() -> None:
    names = set(re.findall(r"^(?:\[aws\.)?(\w+)", TABLES[1], re.MULTILINE)) - {"aws", "train", "team"}
    assert names == set(vars(Settings()))
