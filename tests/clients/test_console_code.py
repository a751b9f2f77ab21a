"""Tests of the programs that the console generates: they create the same resources again, with each client library."""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.console.code import sdk_v3
from microjobs_orchestrator.local.console.code.sdk_v2 import CallSource, ListSource, MergedSource
from microjobs_orchestrator.local.console.code.sdk_v2_tables import PROGRAMS
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.kinds import Kind, load_kinds
from microjobs_orchestrator.local.parity.rows import Members, Refused
from microjobs_orchestrator.local.parity.table import TABLE
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.pipelines.kinds import PIPELINE, PIPELINE_EXECUTION
from microjobs_orchestrator.local.resources.processing.kinds import PROCESSING_JOB
from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB
from microjobs_orchestrator.local.resources.transform.kinds import TRANSFORM_JOB
from microjobs_orchestrator.local.resources.tuning.kinds import TUNING_JOB
from tests.clients.console_requests import (
    KINDS_WITH_PREREQUISITES,
    REQUEST_VARIANTS,
    TRANSFORM_MODEL,
    make_model,
    put_manifest,
)
from tests.clients.environments import install_client_programs, run_program
from tests.local.clients import LocalServer
from tests.local.resources.examples import create_example, find_example
from tests.local.security.console_client import API_PATH, Console, make_token
from tests.local.security.stub_runner import run_stub_server
from tests.local.security.wire import Sender

SUFFIXES = {"boto3": "-boto3", "AWS CLI": "-cli", "SageMaker SDK v3": "-sdk3", "SageMaker SDK v2": "-sdk2"}
"""Suffixes of the names of the new resources, by the titles of programs."""
DEFAULTS = {
    "AppManaged": (False,),
    "CompressionType": ("None", "GZIP"),
    "EnableInterContainerTrafficEncryption": (False,),
    "EnableManagedSpotTraining": (False,),
    "EnableNetworkIsolation": (False,),
    "ProfilerConfig": ({"DisableProfiler": True},),
    "RecordWrapperType": ("None",),
    "S3CompressionType": ("None",),
    "S3DataDistributionType": ("FullyReplicated",),
    "S3InputMode": ("File",),
    "ScalingType": ("Auto",),
    "TrainingJobEarlyStoppingType": ("Off",),
}
"""AWS's default values. The SDKs send some of them."""


CLI_KINDS = (MODEL, PIPELINE, PROCESSING_JOB, TRAINING_JOB, TRANSFORM_JOB, TUNING_JOB)
"""Kinds whose programs for the AWS CLI run in tests."""


@dataclass(frozen=True)
class Case:
    """A resource that generated programs create again, with another name."""

    kind: Kind
    name: str
    is_created_by_another_case: bool = False
    """Whether the program of another case creates the resource, too."""

    def is_tested_with(self, title: str) -> bool:
        """Return whether the tests run the resource's program with this title.

        The AWS CLI starts slowly, so the tests run only a few of its programs.
        """
        return title != "AWS CLI" or (self.name.startswith("variant") and self.kind in CLI_KINDS)

    @property
    def arn(self) -> str:
        if self.kind is PIPELINE_EXECUTION and (make_arn := find_example(self.kind).make_arn):
            return make_arn(self.name)
        return format_arn(f"{self.kind.arn_type}/{self.name}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with run_stub_server(tmp_path_factory.mktemp("code")) as server:
        yield server


def create_resource(server: LocalServer, kind: Kind, request: Mapping[str, Any]) -> None:
    getattr(server.sagemaker, xform_name(kind.operations["Create"]))(**request)


@pytest.fixture(scope="module")
def cases(server: LocalServer) -> list[Case]:
    cases = []
    for number, kinds in enumerate(KINDS_WITH_PREREQUISITES):
        name = f"example-{number}"
        create_example(server, kinds[-1], name)
        cases += [
            Case(kind, name, is_created_by_another_case=kind is not ENDPOINT and ENDPOINT in kinds) for kind in kinds
        ]
    put_manifest(server)
    server.sagemaker.create_model(**make_model(server, TRANSFORM_MODEL))
    for number, (kind, make_request) in enumerate(REQUEST_VARIANTS):
        create_resource(server, kind, make_request(server, f"variant-{number}"))
        cases.append(Case(kind, f"variant-{number}"))
    return cases


@pytest.fixture(scope="module")
def programs(server: LocalServer, cases: list[Case]) -> dict[str, list[str]]:
    """The programs of all cases by their titles, with the names of the new resources."""
    sender = Sender(server.address)
    console = Console(sender)
    console.open(make_token(server))
    programs: dict[str, list[str]] = {title: [] for title in SUFFIXES}
    for case in cases:
        if not case.is_created_by_another_case:
            response = json.loads(console.post(f"{API_PATH}code", {"arn": case.arn}).body)
            for title, text in response["programs"].items():
                if case.is_tested_with(title):
                    programs[title].append(text.replace(f'"{case.name}"', f'"{case.name}{SUFFIXES[title]}"'))
    sender.close()
    return programs


def run_in_process(server: LocalServer, programs: list[str], _: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", server.address.access_key_id)
        patch.setenv("AWS_SECRET_ACCESS_KEY", server.address.secret_access_key)
        for text in programs:
            exec(compile(text, "program", "exec"), {})  # noqa: S102  the test is about this code


def run_in_shell(server: LocalServer, programs: list[str], folder: Path) -> None:
    path = f"{install_client_programs('aws')}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(folder), **control.make_environment(server.home, server.address)}
    command = ["sh", "-e", "-c", "\n".join(programs)]
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=100
    )
    assert result.returncode == 0, result.stderr[-4000:]


def run_with_sdk(client: str, server: LocalServer, programs: list[str], folder: Path) -> None:
    (folder / "programs.json").write_text(json.dumps(programs))
    run_program(client, server, folder, "run_console_programs.py", "programs.json")


def describe_request(server: LocalServer, case: Case, suffix: str = "") -> Any:
    """Return the members of the Create request, as Describe returns them, and the tags."""
    name = f"{case.name}{suffix}"
    if case.kind is PIPELINE_EXECUTION:
        executions = server.sagemaker.list_pipeline_executions(PipelineName=name)["PipelineExecutionSummaries"]
        identifier = executions[0]["PipelineExecutionArn"]
    else:
        identifier = name
    operation = getattr(server.sagemaker, xform_name(case.kind.operations["Describe"]))
    description = operation(**{case.kind.identifier_member: identifier})
    shape = load_operation_model("sagemaker", case.kind.operations["Create"]).input_shape
    members = {member: value for member, value in description.items() if shape and member in shape.members}
    tags = server.sagemaker.list_tags(ResourceArn=description[case.kind.arn_member])["Tags"]
    return normalise({**members, "Tags": tags}, suffix)


def normalise(value: Any, suffix: str) -> Any:
    """Remove default values, and the suffix of names."""
    if isinstance(value, Mapping):
        items = {name: normalise(_parse_definition(name, item), suffix) for name, item in value.items()}
        return {name: item for name, item in items.items() if item not in ({}, [], *DEFAULTS.get(name, ()))}
    if isinstance(value, list):
        return [normalise(item, suffix) for item in value]
    return value.removesuffix(suffix) if isinstance(value, str) else value


def _parse_definition(name: str, value: Any) -> Any:
    return json.loads(value) if name == "PipelineDefinition" else value


@pytest.mark.slow
@pytest.mark.parametrize("title", SUFFIXES)
def test_programs_create_the_same_resources(
    server: LocalServer, cases: list[Case], programs: dict[str, list[str]], title: str, tmp_path: Path
) -> None:
    runners = {
        "boto3": run_in_process,
        "AWS CLI": run_in_shell,
        "SageMaker SDK v3": lambda *arguments: run_with_sdk("sdk3", *arguments),
        "SageMaker SDK v2": lambda *arguments: run_with_sdk("sdk", *arguments),
    }
    runners[title](server, programs[title], tmp_path)
    for case in (case for case in cases if case.is_tested_with(title)):
        assert describe_request(server, case, SUFFIXES[title]) == describe_request(server, case), case


def list_arguments(value: object) -> Iterator[str]:
    """Yield the names of all arguments of a call, and of the calls in its arguments."""
    if isinstance(value, CallSource):
        for name, source in value.arguments.items():
            yield name
            yield from list_arguments(source)
    elif isinstance(value, ListSource):
        yield from list_arguments(value.item_source)
    elif isinstance(value, MergedSource):
        for item in value.sources:
            yield from list_arguments(item)


@pytest.mark.parametrize("noun", PROGRAMS)
def test_each_argument_of_sdk_v2_is_tested(programs: dict[str, list[str]], noun: str) -> None:
    text = "\n".join(programs["SageMaker SDK v2"])
    calls = [call for _, call in PROGRAMS[noun].calls]
    assert [call.function for call in calls if f"{call.function}(" not in text] == []
    names = {name for call in calls for name in list_arguments(call)}
    assert sorted(name for name in names if not re.search(rf"\b{name}=", text)) == []


def is_refused(path: list[str]) -> bool:
    """Return whether the server refuses a member, or a structure that contains it."""
    rows: Any = TABLE["sagemaker"]
    for name in path:
        row = rows[name]
        if not isinstance(row, (Members, Mapping)):
            return isinstance(row, Refused)
        rows = row.rows if isinstance(row, Members) else row
    return False


@pytest.mark.slow
def test_members_that_sdk_v3_lacks_are_known(server: LocalServer, tmp_path: Path) -> None:
    nouns = {kind.noun for kind in load_kinds()} - set(sdk_v3.UNSUPPORTED_KINDS)
    output = run_program("sdk3", server, tmp_path, "missing_members_v3.py", *sorted(nouns))
    missing_members = {(shape, member) for path, shape, member in json.loads(output[-1]) if not is_refused(path)}
    assert missing_members == sdk_v3.UNSUPPORTED_MEMBERS
