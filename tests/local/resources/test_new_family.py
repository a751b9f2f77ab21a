"""A new resource family needs one folder and one module with an example, which `make new-resource/greeting` creates.

It needs no edits in existing files.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.home import Home
from tests.local.resources.greeting import RepositoryCopy
from tests.polling import wait_until

FAMILY = Path("orchestrator/local/resources/greeting")
EXAMPLE = Path("tests/local/resources/examples/greeting.py")
ENDED_STATUSES = ("Completed", "Failed", "Stopped")


class Server:
    """A running server of the copy, and a client that knows the operations on greetings."""

    def __init__(self, copy: RepositoryCopy) -> None:
        self.copy = copy
        self.start()

    def start(self) -> None:
        self.copy.microjobs("local", "up", "--detach", "--runtime", "process", "--port", "0")
        address = control.find_server(Home(self.copy.microjobs_home))
        assert address is not None
        session: Any = botocore.session.get_session()
        session.get_component("data_loader").search_paths.insert(0, str(self.copy.models))
        self.pid = address.pid
        self.client = session.create_client(
            "sagemaker",
            region_name=address.region,
            endpoint_url=address.url,
            aws_access_key_id=address.access_key_id,
            aws_secret_access_key=address.secret_access_key,
        )

    def greet(self, name: str, script: str, **members: Any) -> str:
        """Create a greeting whose host runs a script; return its ARN."""
        return str(self.client.create_greeting(GreetingName=name, Text=script, **members)["GreetingArn"])

    def describe(self, name: str) -> dict[str, Any]:
        return dict(self.client.describe_greeting(GreetingName=name))

    def wait(self, name: str, *statuses: str) -> dict[str, Any]:
        description: dict[str, Any] = wait_until(
            lambda: self.describe(name), lambda greeting: greeting["GreetingStatus"] in (statuses or ENDED_STATUSES)
        )
        return description

    def wait_for_line(self, name: str, line: str) -> None:
        wait_until(lambda: self.copy.microjobs("logs", name), lambda log: line in log)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> RepositoryCopy:
    """A copy of the repository with the new family. A greeting runs the `Text` of its request as a script."""
    new_copy = RepositoryCopy(tmp_path_factory.mktemp("copy"))
    new_copy.run("scripts.new_resource", "greeting")
    job = new_copy.folder / FAMILY / "job.py"
    text = job.read_text()
    for old, new in (("serve:dev", "tiny:dev"), ('f"echo hello from {self.job.name}"', 'self.job.request["Text"]')):
        assert old in text
        text = text.replace(old, new)
    job.write_text(text)
    return new_copy


@pytest.fixture(scope="module")
def server(copy: RepositoryCopy) -> Iterator[Server]:
    new_server = Server(copy)
    yield new_server
    copy.microjobs("local", "down")


@pytest.mark.slow
def test_family_is_created_described_and_runs(server: Server) -> None:
    arn = server.greet("hello", "echo good morning")
    assert arn == "arn:aws:sagemaker:us-east-1:000000000000:greeting/hello"
    greeting = server.wait("hello")
    assert (greeting["GreetingStatus"], greeting["Text"]) == ("Completed", "echo good morning")
    assert greeting["StartTime"] <= greeting["EndTime"]
    assert "good morning" in server.copy.microjobs("logs", "hello")
    with pytest.raises(ClientError, match="Greeting names must be unique: hello already exists"):
        server.greet("hello", "true")
    with pytest.raises(ClientError, match=r"\(it is not supported yet\)"):
        server.greet("other", "true", Language="en")


def test_family_is_listed_in_pages_and_tagged(server: Server) -> None:
    for number in range(3):
        server.greet(f"page-{number}", "true", Tags=[{"Key": "number", "Value": str(number)}])
        server.wait(f"page-{number}")
    first_page = server.client.list_greetings(NameContains="page-", MaxResults=2)
    second_page = server.client.list_greetings(NameContains="page-", MaxResults=2, NextToken=first_page["NextToken"])
    pages = [[item["GreetingName"] for item in page["GreetingSummaries"]] for page in (first_page, second_page)]
    assert pages == [["page-0", "page-1"], ["page-2"]]
    assert "NextToken" not in second_page
    arn = first_page["GreetingSummaries"][1]["GreetingArn"]
    assert server.client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "number", "Value": "1"}]


def test_family_is_stopped_and_deleted(server: Server) -> None:
    server.greet("long", "echo begun; sleep 100")
    server.wait_for_line("long", "begun")
    with pytest.raises(ClientError, match=r"is in status InProgress\. Stop it first"):
        server.client.delete_greeting(GreetingName="long")
    server.client.stop_greeting(GreetingName="long")
    assert server.wait("long")["GreetingStatus"] == "Stopped"
    server.client.delete_greeting(GreetingName="long")
    with pytest.raises(ClientError, match='Could not find greeting "arn:'):
        server.describe("long")


def test_commands_and_the_parity_page_show_the_family(server: Server) -> None:
    server.greet("shown", "true")
    server.wait("shown")
    line = next(
        line
        for line in server.copy.microjobs("ps", "--kind", "greeting", "--limit", "100").splitlines()
        if "shown" in line
    )
    assert "greeting" in line
    assert "Completed" in line
    server.copy.run("scripts.parity")
    page = (server.copy.folder / "docs" / "maintaining" / "parity.md").read_text()
    assert "### CreateGreeting" in page
    assert "`DescribeGreeting`" in page


def test_server_that_is_killed_recovers_the_family(server: Server) -> None:
    """Processes end with their server, so the restarted server describes why the greeting has failed."""
    server.greet("lost", "echo begun; sleep 100")
    server.wait_for_line("lost", "begun")
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: control.find_server(Home(server.copy.microjobs_home)), lambda address: address is None)
    server.start()
    description = server.wait("lost")
    assert (description["GreetingStatus"], description["FailureReason"]) == (
        "Failed",
        "InternalServerError: the local server ended while the job ran",
    )
    server.greet("next", "true")
    assert server.wait("next")["GreetingStatus"] == "Completed"


def test_tests_of_every_kind_include_the_family(copy: RepositoryCopy) -> None:
    modules = [f"tests/local/{name}.py" for name in ("test_both_runtimes", "resources/test_every_kind")]
    output = copy.run("pytest", "--collect-only", "--quiet", *modules).stdout.splitlines()
    assert {line.partition("::")[0] for line in output if "[greeting]" in line} == set(modules)


@pytest.mark.slow
def test_family_passes_the_test_of_its_example(copy: RepositoryCopy) -> None:
    test = "tests/local/resources/test_every_kind.py::test_kind_has_an_example_request"
    assert "1 passed" in copy.run("pytest", "--quiet", f"{test}[greeting]").stdout
    (copy.folder / EXAMPLE).rename(moved_example := copy.folder / "example.py")
    try:
        assert "kind greeting has no example request" in copy.run("pytest", f"{test}[greeting]", check=False).stdout
    finally:
        moved_example.rename(copy.folder / EXAMPLE)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("training-job", "the local server already has the kind training-job"),
        ("presigned-domain-url", "SageMaker has no operation DescribePresignedDomainUrl"),
        ("app", "DescribeApp does not identify a resource by AppName alone"),
    ],
)
def test_family_that_the_template_does_not_suit_is_refused(copy: RepositoryCopy, name: str, reason: str) -> None:
    process = copy.run("scripts.new_resource", name, check=False)
    assert (process.returncode, process.stderr) == (1, f"new-resource: {reason}\n")


def test_error_about_an_unknown_family_lists_the_possible_families(copy: RepositoryCopy) -> None:
    choices = copy.run("scripts.new_resource", "x", check=False).stderr.strip().partition("choose from ")[2].split(", ")
    assert "auto-ml-job" in choices
    assert not {"training-job", "presigned-domain-url", "app"} & set(choices)


def test_no_other_file_names_the_family(copy: RepositoryCopy) -> None:
    sources = [
        path for path in (copy.folder / "orchestrator").rglob("*.py") if not path.is_relative_to(copy.folder / FAMILY)
    ]
    assert [path for path in sources if "greeting" in path.read_text().lower()] == []
