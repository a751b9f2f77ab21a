"""Operations on pipelines and their versions."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.protocols.validation import validate
from microjobs_orchestrator.local.resources.operations import load_operations
from microjobs_orchestrator.local.resources.pipelines import executions, operations
from microjobs_orchestrator.local.services.sagemaker import SageMaker
from microjobs_orchestrator.local.state import Query
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import FakeRuntime

ROLE = "arn:aws:iam::000000000000:role/microjobs"
TOKEN, OTHER_TOKEN = "t" * 32, "u" * 32
ARN = "arn:aws:sagemaker:us-east-1:000000000000:pipeline/p"


def make_definition(step: str = "stop") -> str:
    return json.dumps({"Version": "2020-12-01", "Steps": [{"Name": step, "Type": "Fail"}]})


CREATE_REQUEST = {
    "PipelineName": "p",
    "PipelineDefinition": make_definition(),
    "RoleArn": ROLE,
    "ClientRequestToken": TOKEN,
}


class Client:
    """A client that validates its requests and calls the operations in this process."""

    def __init__(self, home: Home) -> None:
        self._runtime = FakeRuntime()
        self.parts = ServerParts.from_home(home, self._runtime)
        kind_operations = load_operations(self.parts.context, self.parts.registry)
        self._operations = SageMaker(self.parts.context, kind_operations).list_handlers()

    def call(self, operation: str, **members: Any) -> dict[str, Any]:
        validate(load_operation_model("sagemaker", operation), members)
        return dict(self._operations[operation](members))

    def create(self, **members: Any) -> dict[str, Any]:
        return self.call("CreatePipeline", **{**CREATE_REQUEST, **members})

    def update(self, **members: Any) -> int:
        """Update the pipeline `p`; return the number of its latest version."""
        return int(self.call("UpdatePipeline", PipelineName="p", **members)["PipelineVersionId"])

    def describe(self, **members: Any) -> dict[str, Any]:
        return self.call("DescribePipeline", **{"PipelineName": "p", **members})

    def list_versions(self, **members: Any) -> list[int]:
        summaries = self.call("ListPipelineVersions", PipelineName="p", **members)["PipelineVersionSummaries"]
        return [summary["PipelineVersionId"] for summary in summaries]

    def change_aliases(self, version: int, **operations: list[str]) -> None:
        self.call(
            "UpdatePipelineVersion",
            PipelineArn=ARN,
            PipelineVersionId=version,
            PipelineVersionAliasOperations=operations,
        )

    def close(self) -> None:
        self.parts.close()
        self._runtime.close()


@pytest.fixture
def client(home: Home) -> Iterator[Client]:
    new_client = Client(home)
    yield new_client
    new_client.close()


def assert_refused(
    call: Callable[..., object], message: str, code: str = "ValidationException", **members: Any
) -> None:
    with pytest.raises(ServiceError, match=message) as caught:
        call(**members)
    assert caught.value.code == code


def test_pipeline_is_described(client: Client) -> None:
    parallelism = {"MaxParallelExecutionSteps": 3}
    assert client.create(ParallelismConfiguration=parallelism, PipelineDescription="d") == {"PipelineArn": ARN}
    description = client.describe()
    times = description.pop("CreationTime"), description.pop("LastModifiedTime")
    assert 0 < times[0] == times[1]
    assert description == {
        "PipelineArn": ARN,
        "PipelineName": "p",
        "PipelineDisplayName": "p",
        "PipelineDefinition": make_definition(),
        "PipelineDescription": "d",
        "RoleArn": ROLE,
        "PipelineStatus": "Active",
        "ParallelismConfiguration": parallelism,
        "PipelineVersionAliases": [],
        "CreatedBy": {},
        "LastModifiedBy": {},
    }
    assert client.describe(PipelineName=ARN) == client.describe()


def test_repeated_request_creates_nothing(client: Client) -> None:
    client.create()
    assert client.create() == {"PipelineArn": ARN}
    assert client.list_versions() == [1]
    for members in ({"ClientRequestToken": OTHER_TOKEN}, {"PipelineDescription": "x"}):
        # The SageMaker SDK searches the message of this error for "already exists".
        assert_refused(client.create, "a pipeline with the name p already exists", **members)


def test_invalid_definition_creates_nothing(client: Client) -> None:
    assert_refused(client.create, "Invalid pipeline definition: it is not JSON", PipelineDefinition="{")
    assert_refused(client.create, "length less than or equal to 1048576", PipelineDefinition=" \n" * (5 << 20))
    assert_refused(client.describe, "Could not find pipeline", "ResourceNotFound")


def test_definition_comes_from_s3(client: Client, home: Home) -> None:
    folder = home.buckets / "bucket"
    folder.mkdir()
    text = json.dumps(json.loads(make_definition()) | {"Metadata": {"large": "é" * 200_000}}, ensure_ascii=False)
    (folder / "definition.json").write_text(text)
    location = {"Bucket": "bucket", "ObjectKey": "definition.json"}
    assert_refused(client.create, "Specify one of .*; the request has 2", PipelineDefinitionS3Location=location)
    request = {name: value for name, value in CREATE_REQUEST.items() if name != "PipelineDefinition"}
    assert_refused(client.call, "the request has 0", operation="CreatePipeline", **request)
    client.call("CreatePipeline", **request, PipelineDefinitionS3Location=location)
    (folder / "definition.json").unlink()
    assert client.describe()["PipelineDefinition"] == text
    assert_refused(client.update, "Could not read the definition s3://", PipelineDefinitionS3Location=location)
    (folder / "definition.json").write_bytes(b"\xff")
    assert_refused(client.update, "is not text in UTF-8", PipelineDefinitionS3Location=location)
    (folder / "definition.json").write_text(" " * (10 << 20))
    assert_refused(client.update, "more than 1048576", PipelineDefinitionS3Location=location)


def test_changed_definition_is_a_new_version(client: Client) -> None:
    client.create()
    assert client.update(PipelineDefinition=make_definition("b"), PipelineDescription="new") == 2
    assert client.update(PipelineDefinition=make_definition("b"), RoleArn=f"{ROLE}2") == 2
    description = client.describe()
    assert (description["PipelineDefinition"], description["PipelineDescription"]) == (make_definition("b"), "new")
    assert description["RoleArn"] == f"{ROLE}2"
    assert client.describe(PipelineVersionId=1)["PipelineDefinition"] == make_definition()
    assert client.list_versions() == [2, 1]
    assert_refused(client.describe, "Could not find version 3 of pipeline 'p'", "ResourceNotFound", PipelineVersionId=3)
    assert_refused(client.update, "did you mean Steps", PipelineDefinition='{"Version": "2020-12-01", "Step": []}')
    assert client.list_versions() == [2, 1]


def test_versions_are_listed_in_pages_and_by_time(client: Client) -> None:
    client.create()
    for number in range(12):
        client.update(PipelineDefinition=make_definition(f"s{number}"))
    assert client.list_versions(SortOrder="Ascending", MaxResults=3) == [1, 2, 3]
    page = client.call("ListPipelineVersions", PipelineName=ARN, MaxResults=12)
    assert [summary["PipelineVersionId"] for summary in page["PipelineVersionSummaries"]] == list(range(13, 1, -1))
    assert client.list_versions(NextToken=page["NextToken"]) == [1]
    creation_time = page["PipelineVersionSummaries"][0]["CreationTime"]
    assert client.list_versions(CreatedAfter=creation_time) == [13]
    assert client.list_versions(CreatedBefore=creation_time - 3600) == []


def test_versions_have_aliases(client: Client) -> None:
    client.create(PipelineVersionAliases=["prod", "a"])
    client.update(PipelineDefinition=make_definition("b"), PipelineVersionAliases=["next"])
    assert client.describe(PipelineVersionAlias="prod")["PipelineDefinition"] == make_definition()
    client.change_aliases(1, Remove=["prod"])
    client.change_aliases(2, Add=["prod"])
    description = client.describe(PipelineVersionAlias="prod")
    assert (description["PipelineDefinition"], description["PipelineVersionAliases"]) == (
        make_definition("b"),
        ["next", "prod"],
    )
    assert_refused(client.describe, "with the alias 'x'", "ResourceNotFound", PipelineVersionAlias="x")
    assert_refused(client.describe, "not both", PipelineVersionAlias="prod", PipelineVersionId=1)


def test_invalid_aliases_are_refused(client: Client) -> None:
    assert_refused(client.create, "must not consist of digits only", PipelineVersionAliases=["12"])
    assert_refused(client.create, "must be different", PipelineVersionAliases=["a", "a"])
    client.create(PipelineVersionAliases=["prod"])
    assert_refused(client.update, "the definition does not change", PipelineVersionAliases=["x"])
    changed_definition = make_definition("b")
    assert_refused(
        client.update, "belongs to version 1", PipelineDefinition=changed_definition, PipelineVersionAliases=["prod"]
    )
    assert client.list_versions() == [1]
    client.update(PipelineDefinition=changed_definition)
    assert_refused(client.change_aliases, "belongs to version 1", version=2, Add=["prod"])
    assert_refused(client.change_aliases, "has no alias 'x'", version=1, Remove=["x"])
    assert_refused(client.change_aliases, "in both Add and Remove", version=1, Remove=["prod"], Add=["prod"])
    assert_refused(
        client.change_aliases, "can have at most 10 aliases, not 11", version=1, Add=[f"a{n}" for n in range(10)]
    )


def test_version_has_a_name_and_a_description(client: Client) -> None:
    client.create()
    members = {"PipelineVersionDisplayName": "first", "PipelineVersionDescription": "d"}
    client.call("UpdatePipelineVersion", PipelineArn=ARN, PipelineVersionId=1, **members)
    assert client.describe().items() >= members.items()
    (summary,) = client.call("ListPipelineVersions", PipelineName="p")["PipelineVersionSummaries"]
    assert summary.items() >= members.items()
    request = {"operation": "UpdatePipelineVersion", "PipelineArn": f"{ARN}x", "PipelineVersionId": 1}
    assert_refused(client.call, "Could not find pipeline .*/px", "ResourceNotFound", **request)


def test_pipelines_are_listed(client: Client) -> None:
    for name in ("ab", "b", "ba"):
        client.create(PipelineName=name)

    def list_names(**members: Any) -> list[str]:
        return [item["PipelineName"] for item in client.call("ListPipelines", **members)["PipelineSummaries"]]

    assert list_names() == ["ba", "b", "ab"]
    assert list_names(PipelineNamePrefix="b", SortBy="Name", SortOrder="Ascending") == ["b", "ba"]
    assert list_names(ManagedBy="AWS") == []
    assert len(list_names(ManagedBy="CUSTOMER")) == 3
    assert list_names(CreatedAfter=4_000_000_000) == []


def test_newest_execution_is_described(client: Client) -> None:
    client.create()
    client.update(PipelineDefinition=make_definition("b"))
    assert "LastRunTime" not in client.describe()
    request = {"operation": "StartPipelineExecution", "PipelineName": "p"}
    client.call(**request, ClientRequestToken=OTHER_TOKEN)
    arn = client.call(**request, ClientRequestToken=TOKEN, PipelineVersionId=1)["PipelineExecutionArn"]
    creation_time = client.call("DescribePipelineExecution", PipelineExecutionArn=arn)["CreationTime"]
    (summary,) = client.call("ListPipelines")["PipelineSummaries"]
    assert (client.describe()["LastRunTime"], summary["LastExecutionTime"]) == (creation_time, creation_time)
    second, first = client.call("ListPipelineVersions", PipelineName="p")["PipelineVersionSummaries"]
    assert first["LastExecutionPipelineExecutionArn"] == arn
    assert second["LastExecutionPipelineExecutionArn"] not in ("", arn)


def test_changed_pipeline_does_not_change_executions(client: Client) -> None:
    client.create()
    members = {"operation": "StartPipelineExecution", "PipelineName": "p", "ClientRequestToken": TOKEN}
    arn = client.call(**members)["PipelineExecutionArn"]
    client.update(PipelineDefinition=make_definition("b"), ParallelismConfiguration={"MaxParallelExecutionSteps": 1})
    description = client.call("DescribePipelineDefinitionForExecution", PipelineExecutionArn=arn)
    assert description["PipelineDefinition"] == make_definition()
    assert "ParallelismConfiguration" not in client.call("DescribePipelineExecution", PipelineExecutionArn=arn)


def test_deleted_pipeline_has_no_versions(client: Client) -> None:
    client.create()
    client.update(PipelineDefinition=make_definition("b"))
    request = {"PipelineName": "p", "ClientRequestToken": TOKEN}
    assert client.call("DeletePipeline", **request) == {"PipelineArn": ARN}
    assert client.parts.context.state.find(Query("pipeline-version")) == []
    assert client.call("DeletePipeline", **request) == {"PipelineArn": ARN}
    assert_refused(client.call, "Could not find", "ResourceNotFound", operation="DeletePipeline", PipelineName="p",
            ClientRequestToken=OTHER_TOKEN)  # fmt: skip
    client.create()
    assert client.list_versions() == [1]
    assert client.call("DeletePipeline", **request) == {"PipelineArn": ARN}


def test_pipeline_that_is_being_deleted_does_not_start(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.create()
    start = partial(client.call, "StartPipelineExecution", PipelineName="p", ClientRequestToken=TOKEN)
    with ThreadPoolExecutor() as pool:
        starts: list[Future[dict[str, Any]]] = []

        def delete_executions(*arguments: Any) -> None:
            executions.delete_executions(*arguments)
            starts.append(pool.submit(start))
            time.sleep(0.2)  # a start that does not wait for the deletion would end in this time

        monkeypatch.setattr(operations, "delete_executions", delete_executions)
        client.call("DeletePipeline", PipelineName="p", ClientRequestToken=TOKEN)
        assert_refused(starts[0].result, "Could not find pipeline", "ResourceNotFound")
    assert client.parts.context.state.find(Query("pipeline-execution")) == []


def test_new_pipeline_has_no_versions_of_an_interrupted_deletion(client: Client) -> None:
    client.create()
    client.update(PipelineDefinition=make_definition("b"))
    client.parts.context.state.delete("pipeline", "p")  # the server was killed at this point
    client.create(PipelineDefinition=make_definition("c"))
    assert client.list_versions() == [1]
    assert client.describe()["PipelineDefinition"] == make_definition("c")


def test_arn_of_a_version_does_not_name_a_pipeline(client: Client) -> None:
    client.create()
    assert_refused(client.describe, "Could not find pipeline", "ResourceNotFound", PipelineName=f"{ARN}/version/1")
