"""Search: expressions, the order and the pages of results, and requests of a real client."""

import json
import tracemalloc
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.protocols.aws_json import format_object
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.protocols.results import Handler
from microjobs_orchestrator.local.resources.operations import load_operations
from microjobs_orchestrator.local.resources.search.expressions import compile_expression
from microjobs_orchestrator.local.resources.search.operation import SCAN_SIZE
from microjobs_orchestrator.local.resources.search.searchable_kinds import SEARCHABLE_KINDS
from microjobs_orchestrator.local.services.sagemaker import SageMaker
from tests.local.clients import LocalServer
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import FakeRuntime
from tests.local.security.families import BASE_MEMBERS
from tests.local.security.stub_runner import run_stub_server

NOON = 1_767_268_800.0
"""2026-01-01T12:00:00 in UTC."""


def make_channel(name: str, uri: str) -> dict[str, Any]:
    return {"ChannelName": name, "DataSource": {"S3DataSource": {"S3Uri": uri}}}


JOB: Mapping[str, Any] = {
    "TrainingJobName": "boston-1",
    "TrainingJobStatus": "Completed",
    "CreationTime": NOON + 0.7,
    "EnableManagedSpotTraining": True,
    "BillableTimeInSeconds": 60,
    "HyperParameters": {"learning_rate": "0.25", "layers": "3.7", "optimizer": "adam", "sagemaker_s3.dir": "s3://b/x"},
    "InputDataConfig": [make_channel("train", "s3://bucket/cats"), make_channel("test", "s3://bucket/dogs")],
    "FinalMetricDataList": [{"MetricName": "loss:test", "Value": 0.5, "Timestamp": NOON}],
    "ModelArtifacts": {"S3ModelArtifacts": "s3://bucket/model.tar.gz"},
    "Tags": [{"Key": "team.name", "Value": "blue"}, {"Key": "Key", "Value": "odd"}],
}
URI_PROPERTY = "InputDataConfig.DataSource.S3DataSource.S3Uri"


def matches(expression: Mapping[str, Any], resource: str = "TrainingJob", document: Mapping[str, Any] = JOB) -> bool:
    return compile_expression(SEARCHABLE_KINDS[resource], expression)(document)


def make_filter(name: str, operator: str | None = None, value: str | None = None) -> dict[str, str]:
    members = {"Name": name, "Operator": operator, "Value": value}
    return {member: content for member, content in members.items() if content is not None}


MATCHING_FILTERS = [
    ("TrainingJobName", None, "boston-1"),
    ("TrainingJobName", "Equals", "boston-1"),
    ("TrainingJobName", "NotEquals", "boston"),
    ("TrainingJobName", "Contains", "ton-"),
    ("TrainingJobName", "In", "a,boston-1, b"),
    ("TrainingJobName", "In", "a, boston-1"),
    ("TrainingJobName", "Exists", None),
    ("FailureReason", "NotExists", None),
    ("FailureReason", "NotEquals", "x"),
    # If the filter's value has no decimals, the decimals of the property (a time or a number) are ignored, as on AWS.
    ("CreationTime", "Equals", "2026-01-01T12:00:00"),
    ("CreationTime", "Equals", "2026-01-01T12:00:00.700000Z"),
    ("CreationTime", "GreaterThan", "2026-01-01T12:00:00.5"),
    ("CreationTime", "LessThanOrEqualTo", "2026-01-01T12:00:00"),
    ("CreationTime", "LessThan", "2026-01-01T12:00:01"),
    ("CreationTime", "GreaterThan", "2026-01-01T13:00:00+02:00"),
    ("EnableManagedSpotTraining", "Equals", "True"),
    ("EnableManagedSpotTraining", "NotEquals", "false"),
    ("BillableTimeInSeconds", "GreaterThan", "59.5"),
    ("BillableTimeInSeconds", "LessThan", "6.1e1"),
    ("Metrics.loss:test", "LessThanOrEqualTo", "0.5"),
    ("Metrics.absent", "NotExists", None),
    ("HyperParameters.learning_rate", "LessThan", "0.5"),
    ("HyperParameters.learning_rate", "Equals", "0.250"),
    ("HyperParameters.layers", "Equals", "3"),  # `layers` is 3.7
    ("HyperParameters.layers", "LessThanOrEqualTo", "3"),
    ("HyperParameters.layers", "GreaterThan", "3.0"),
    ("HyperParameters.optimizer", "Equals", "adam"),
    ("HyperParameters.optimizer", "Contains", "da"),
    ("HyperParameters.sagemaker_s3.dir", "Equals", "s3://b/x"),
    ("HyperParameters", "Exists", None),
    (URI_PROPERTY, "Contains", "dogs"),
    ("ModelArtifacts", "Exists", None),
    ("ModelArtifacts.S3ModelArtifacts", "Equals", "s3://bucket/model.tar.gz"),
    ("VpcConfig.Subnets", "NotExists", None),
    ("Tags.team.name", "Equals", "blue"),
    ("Tags.Key", "Equals", "odd"),
    ("Tags.absent", "NotExists", None),
    ("Tags", "Exists", None),
]


@pytest.mark.parametrize(("name", "operator", "value"), MATCHING_FILTERS)
def test_filter_matches(name: str, operator: str | None, value: str | None) -> None:
    assert matches({"Filters": [make_filter(name, operator, value)]})


NON_MATCHING_FILTERS = [
    ("TrainingJobName", "Equals", "Boston-1"),
    ("TrainingJobName", "NotEquals", "boston-1"),
    ("TrainingJobName", "Contains", ".*"),
    ("TrainingJobName", "In", "boston,1"),
    ("FailureReason", "Exists", None),
    ("FailureReason", "Equals", "x"),
    ("FailureReason", "Contains", "x"),
    ("CreationTime", "GreaterThan", "2026-01-01T12:00:00"),
    ("CreationTime", "NotEquals", "2026-01-01T12:00:00"),
    ("EnableManagedSpotTraining", "Equals", "false"),
    ("BillableTimeInSeconds", "LessThan", "60"),
    ("Metrics.loss:test", "GreaterThan", "0.5"),
    ("HyperParameters.optimizer", "GreaterThan", "0"),
    ("HyperParameters.optimizer", "Equals", "0"),
    ("HyperParameters.layers", "GreaterThan", "3"),
    ("HyperParameters.absent", "Exists", None),
    (URI_PROPERTY, "Equals", "s3://bucket"),
    ("Tags.team.name", "Equals", "red"),
    ("Tags.team", "Exists", None),
]


@pytest.mark.parametrize(("name", "operator", "value"), NON_MATCHING_FILTERS)
def test_filter_does_not_match(name: str, operator: str | None, value: str | None) -> None:
    assert not matches({"Filters": [make_filter(name, operator, value)]})


TRUE_FILTER, FALSE_FILTER = make_filter("TrainingJobName", "Exists"), make_filter("FailureReason", "Exists")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ({"Filters": [TRUE_FILTER, FALSE_FILTER]}, False),
        ({"Filters": [TRUE_FILTER, FALSE_FILTER], "Operator": "Or"}, True),
        ({"Filters": [TRUE_FILTER, TRUE_FILTER], "Operator": "And"}, True),
        ({"Filters": [FALSE_FILTER], "SubExpressions": [{"Filters": [TRUE_FILTER]}], "Operator": "Or"}, True),
        ({"Filters": [TRUE_FILTER], "SubExpressions": [{"Filters": [FALSE_FILTER]}]}, False),
        (
            {
                "SubExpressions": [
                    {"SubExpressions": [{"Filters": [FALSE_FILTER, TRUE_FILTER], "Operator": "Or"}]},
                    {"Filters": [TRUE_FILTER]},
                ]
            },
            True,
        ),
    ],
)
def test_conditions_combine(expression: Mapping[str, Any], expected: bool) -> None:
    assert matches(expression) is expected


@pytest.mark.parametrize(("uri", "expected"), [("cats", True), ("dogs", False)])
def test_nested_filters_match_one_item(uri: str, expected: bool) -> None:
    filters = [
        make_filter("InputDataConfig.ChannelName", "Equals", "train"),
        make_filter(URI_PROPERTY, "Contains", uri),
    ]
    nested = {"NestedPropertyName": "InputDataConfig", "Filters": filters}
    assert matches({"NestedFilters": [nested]}) is expected
    assert matches({"Filters": filters})  # the filters match different items of the list


def test_nested_filters_match_tags() -> None:
    filters = [make_filter("Tags.Key", None, "team.name"), make_filter("Tags.Value", None, "blue")]
    assert matches({"NestedFilters": [{"NestedPropertyName": "Tags", "Filters": filters}]})


def test_properties_of_models_may_have_the_prefix_model() -> None:
    model = {"ModelName": "m", "PrimaryContainer": {"Image": "i"}}
    for name in ("ModelName", "Model.ModelName"):
        assert matches({"Filters": [make_filter(name, "Equals", "m")]}, "Model", model)
    assert matches({"Filters": [make_filter("Model.PrimaryContainer.Image", "Equals", "i")]}, "Model", model)


INVALID_EXPRESSIONS = [
    ({}, "SearchExpression is empty: add one of Filters, NestedFilters, SubExpressions, or leave it out"),
    ({"Filters": [TRUE_FILTER], "SubExpressions": [{}]}, "SearchExpression is empty"),
    ({"Filters": [make_filter("TrainingJobNam", "Exists")]}, r"the resource has no 'TrainingJobNam' \(did you mean"),
    (
        {"Filters": [make_filter("TrainingJobName.x", "Exists")]},
        "TrainingJobName has no 'x' .TrainingJobName has: no m",
    ),
    ({"Filters": [make_filter("ModelArtifacts.x", "Exists")]}, "ModelArtifacts has: S3ModelArtifacts"),
    ({"Filters": [make_filter("Tags.", "Exists")]}, "Tags has no ''"),
    ({"Filters": [make_filter("TrainingJobName")]}, "Filter 'TrainingJobName': Equals needs a Value"),
    ({"Filters": [make_filter("TrainingJobName", "Exists", "x")]}, "remove Value 'x', which Exists does not use"),
    (
        {"Filters": [make_filter("TrainingJobName", "LessThan", "x")]},
        "is a text, which LessThan does not support; use E",
    ),
    ({"Filters": [make_filter("BillableTimeInSeconds", "In", "1")]}, "is a number, which In does not support"),
    ({"Filters": [make_filter("BillableTimeInSeconds", "Equals", "nan")]}, "Value 'nan' must be a number such as 10"),
    ({"Filters": [make_filter("HyperParameters.a", "LessThan", "x")]}, "Value 'x' must be a number"),
    ({"Filters": [make_filter("CreationTime", "Equals", "2026-01-01")]}, "Value '2026-01-01' must be a time such as"),
    ({"Filters": [make_filter("CreationTime", "Equals", "2026-13-01T00:00:00")]}, "must be a time such as"),
    ({"Filters": [make_filter("EnableManagedSpotTraining", None, "1")]}, "Value '1' must be true or false"),
    ({"Filters": [make_filter("ModelArtifacts", "Equals", "x")]}, "is a structure, which Equals does not support"),
    ({"Filters": [make_filter("HyperParameters", "Equals", "x")]}, "is a structure, which Equals does not support"),
    (
        {"Filters": [make_filter("TrainingJobName", "Contains", "a"), make_filter("RoleArn", "Contains", "b")]},
        "'CONTAINS' operator usage limit of 1 exceeded",
    ),
    (
        {"SubExpressions": [{"Filters": [TRUE_FILTER] * 16}] * 3},
        "has 51 filters, nested filters and subexpressions; at most 50",
    ),
    (
        {"NestedFilters": [{"NestedPropertyName": "ModelArtifacts", "Filters": [TRUE_FILTER]}]},
        "'ModelArtifacts' is not a list",
    ),
    (
        {"NestedFilters": [{"NestedPropertyName": "HyperParameters.a", "Filters": [TRUE_FILTER]}]},
        "is not a list of structures",
    ),
    (
        {"NestedFilters": [{"NestedPropertyName": "InputDataConfig", "Filters": [make_filter("ChannelName")]}]},
        "'ChannelName' must begin with its NestedPropertyName, as in 'InputDataConfig.ChannelName'",
    ),
]


@pytest.mark.parametrize(("expression", "message"), INVALID_EXPRESSIONS)
def test_invalid_expression_is_refused(expression: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        matches(expression)


# --- the operation ---


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[ServerParts]:
    home = Home(tmp_path / "home")
    home.create()
    runtime = FakeRuntime()
    server_parts = ServerParts.from_home(home, runtime)
    yield server_parts
    server_parts.close()
    runtime.close()


@pytest.fixture
def operations(parts: ServerParts) -> Mapping[str, Handler]:
    return SageMaker(parts.context, load_operations(parts.context, parts.registry)).list_handlers()


@pytest.fixture
def search(operations: Mapping[str, Handler]) -> Handler:
    return operations["Search"]


def add_job(parts: ServerParts, name: str, tags: Mapping[str, str] | None = None, **members: Any) -> None:
    pairs = [{"Key": key, "Value": value} for key, value in (tags or {}).items()]
    description = {"TrainingJobName": name, **members}
    parts.context.state.add("training-job", name, f"arn:{name}", "Completed", {}, description, tags=pairs)


def find_names(search: Handler, **members: Any) -> list[str]:
    response = search({"Resource": "TrainingJob", **members})
    return [result["TrainingJob"]["TrainingJobName"] for result in response["Results"]]  # type: ignore[index]


def test_most_recently_changed_resource_comes_first(parts: ServerParts, search: Handler) -> None:
    for name in "abc":
        add_job(parts, name)
    parts.context.state.update("training-job", "a", {})
    assert find_names(search) == ["a", "c", "b"]
    assert find_names(search, SortBy="CreationTime", SortOrder="Ascending") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("order", "expected"),
    [("Ascending", ["nine", "ten", "word", "none"]), ("Descending", ["word", "ten", "nine", "none"])],
)
def test_missing_values_come_last(parts: ServerParts, search: Handler, order: str, expected: list[str]) -> None:
    for name, value in {"ten": "10", "none": None, "nine": "9", "word": "a"}.items():
        add_job(parts, name, HyperParameters={} if value is None else {"x": value})
    assert find_names(search, SortBy="HyperParameters.x", SortOrder=order) == expected


@pytest.mark.parametrize("order", ["Ascending", "Descending"])
@pytest.mark.parametrize("sort_by", ["TrainingJobName", "Metrics.loss", "CreationTime", "Tags.parity"])
def test_pages_have_each_resource_once(parts: ServerParts, search: Handler, sort_by: str, order: str) -> None:
    count = SCAN_SIZE * 2 + 9
    for number in range(count):
        metrics = [{"MetricName": "loss", "Value": number % 3}] if number % 2 else []
        add_job(parts, f"job-{number}", {"parity": str(number % 2)}, FinalMetricDataList=metrics)
    names, sizes, token = list[str](), list[int](), dict[str, str]()
    request = {"Resource": "TrainingJob", "SortBy": sort_by, "SortOrder": order, "MaxResults": 100}
    while len(names) <= count:
        response: Any = search({**request, **token})
        names += [result["TrainingJob"]["TrainingJobName"] for result in response["Results"]]
        sizes.append(len(response["Results"]))
        assert response["TotalHits"] == {"Value": count, "Relation": "EqualTo"}
        if "NextToken" not in response:
            break
        token = {"NextToken": response["NextToken"]}
    assert sizes == [100] * (count // 100) + [count % 100]
    assert sorted(names) == sorted(f"job-{number}" for number in range(count))


def test_deleted_resource_does_not_shift_the_next_page(parts: ServerParts, search: Handler) -> None:
    for name in "abcd":
        add_job(parts, name)
    request = {"Resource": "TrainingJob", "SortBy": "TrainingJobName", "SortOrder": "Ascending", "MaxResults": 2}
    token: Any = search(request)["NextToken"]  # type: ignore[index]
    parts.context.state.delete("training-job", "a")
    assert find_names(search, **{**request, "NextToken": token}) == ["c", "d"]


@pytest.mark.parametrize(
    "value", [1, [], [1, 2, "", "", 0], [1, "", "", "", 0], [[], 0.0, "", "", 0], [1, float("nan"), "", "", 0], None]
)
def test_forged_token_is_refused(search: Handler, value: Any) -> None:
    token = urlsafe_b64encode(json.dumps(value).encode()).decode()
    with pytest.raises(ValidationError, match="is not valid: pass the NextToken of the last response"):
        search({"Resource": "TrainingJob", "NextToken": token})


def measure_peak_bytes(search: Handler) -> int:
    tracemalloc.start()
    try:
        search({"Resource": "TrainingJob", "SortBy": "TrainingJobName", "MaxResults": 5})
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_depend_on_the_number_of_resources(parts: ServerParts, search: Handler) -> None:
    for number in range(SCAN_SIZE * 2):
        add_job(parts, f"job-{number}", HyperParameters={"x": "y" * 2000})
    measure_peak_bytes(search)  # the first search fills caches
    peak_bytes = measure_peak_bytes(search)
    for number in range(SCAN_SIZE * 2, SCAN_SIZE * 8):
        add_job(parts, f"job-{number}", HyperParameters={"x": "y" * 2000})
    assert measure_peak_bytes(search) < peak_bytes * 1.2


def test_visibility_conditions_hide_resources_with_another_value(parts: ServerParts, search: Handler) -> None:
    add_job(parts, "blue", {"team": "blue"})
    add_job(parts, "red", {"team": "red"})
    add_job(parts, "none")
    conditions = [{"Key": "Tags.team", "Value": "blue"}]
    assert sorted(find_names(search, VisibilityConditions=conditions)) == ["blue", "none"]
    with pytest.raises(ValidationError, match=r"Key 'team' must be 'Tags\.' followed by the key of a tag"):
        search({"Resource": "TrainingJob", "VisibilityConditions": [{"Key": "team", "Value": "blue"}]})


@pytest.mark.parametrize("resource", SEARCHABLE_KINDS)
def test_result_has_only_members_of_botocores_model(parts: ServerParts, search: Handler, resource: str) -> None:
    """A stored description may have members that botocore's model does not have. Search leaves them out."""
    kind = SEARCHABLE_KINDS[resource].kind
    request = {**BASE_MEMBERS.get(f"Create{kind.noun}", {}), kind.name_member: "a"}
    description = {kind.arn_member: "arn:a", "Unknown": 1}
    parts.context.state.add(kind.arn_type, "a", "arn:a", "Completed", request, description)
    response: Any = search({"Resource": resource, "SortBy": "CreationTime"})
    content = json.loads(format_object(load_operation_model("sagemaker", "Search").output_shape, response))
    members = content["Results"][0][kind.noun]
    assert members.get(resource, members)[kind.arn_member] == "arn:a"
    assert response["TotalHits"]["Value"] == 1


SUGGESTIONS = [
    "HyperParameters.layers",
    "HyperParameters.learning_rate",
    "HyperParameters.optimizer",
    "Metrics.loss:test",
    "Tags.team",
    "Tags.team.name",
]


@pytest.mark.parametrize(
    "hint", [None, "", "H", "HyperParameters.l", "Metrics.loss:test", "Tags.team", "tags", "layers"]
)
def test_suggestions_are_the_properties_that_begin_with_the_hint(
    parts: ServerParts, operations: Mapping[str, Handler], hint: str | None
) -> None:
    metrics = [{"MetricName": "loss:test", "Value": 0.5}]
    hyperparameters = {"learning_rate": "0.25", "layers": "3"}
    add_job(parts, "a", {"team": "x"}, HyperParameters=hyperparameters, FinalMetricDataList=metrics)
    add_job(parts, "b", {"team": "y", "team.name": "z"}, HyperParameters={"layers": "4", "optimizer": "adam"})
    add_job(parts, "c")
    query = {} if hint is None else {"SuggestionQuery": {"PropertyNameQuery": {"PropertyNameHint": hint}}}
    response: Any = operations["GetSearchSuggestions"]({"Resource": "TrainingJob", **query})
    names = [suggestion["PropertyName"] for suggestion in response["PropertyNameSuggestions"]]
    assert names == [name for name in SUGGESTIONS if name.startswith(hint or "")]
    for name in names:
        assert find_names(operations["Search"], SearchExpression={"Filters": [make_filter(name, "Exists")]})


# --- a real client ---


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with run_stub_server(tmp_path_factory.mktemp("search") / "home") as server:
        yield server


def test_client_finds_models_and_endpoints(server: LocalServer) -> None:
    tags = [{"Key": "team", "Value": "blue"}]
    server.sagemaker.create_model(ModelName="a", **BASE_MEMBERS["CreateModel"], Tags=tags)
    server.sagemaker.create_endpoint_config(EndpointConfigName="a", **BASE_MEMBERS["CreateEndpointConfig"])
    server.sagemaker.create_endpoint(EndpointName="a", EndpointConfigName="a")
    expression = {"Filters": [make_filter("Tags.team", "Equals", "blue")]}
    (result,) = server.sagemaker.search(Resource="Model", SearchExpression=expression)["Results"]
    assert (result["Model"]["Model"]["ModelName"], result["Model"]["Model"]["Tags"]) == ("a", tags)
    suggestions = server.sagemaker.get_search_suggestions(Resource="Model")["PropertyNameSuggestions"]
    assert suggestions == [{"PropertyName": "Tags.team"}]
    expression = {"Filters": [make_filter("ProductionVariants.VariantName", "Equals", "v")]}
    (endpoint,) = server.sagemaker.search(Resource="Endpoint", SearchExpression=expression)["Results"]
    description = server.sagemaker.describe_endpoint(EndpointName="a")
    assert endpoint["Endpoint"]["EndpointArn"] == description["EndpointArn"]


def test_client_finds_a_group_before_it_registers_a_model(server: LocalServer) -> None:
    """`register` of SDK v3 sends this request, and creates the group if there is no result."""
    expression = {"Filters": [make_filter("ModelPackageGroupName", "Equals", "group")]}
    search = partial(server.sagemaker.search, Resource="ModelPackageGroup", SearchExpression=expression)
    assert search()["Results"] == []
    tags = [{"Key": "team", "Value": "blue"}]
    for name in ("group", "group-2"):
        server.sagemaker.create_model_package_group(ModelPackageGroupName=name, Tags=tags)
    (result,) = search()["Results"]
    description = server.sagemaker.describe_model_package_group(ModelPackageGroupName="group")
    del description["ResponseMetadata"]
    assert result == {"ModelPackageGroup": {**description, "Tags": tags}}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"Resource": "FeatureGroup"}, 'Not supported here: Resource "FeatureGroup" .honoured: .*TrainingJob'),
        ({"Resource": "Model", "CrossAccountFilterOption": "CrossAccount"}, "the server has one account"),
        ({"Resource": "Model", "SortBy": "x"}, "Property 'x' is unknown: the resource has no 'x'"),
        ({"Resource": "Model", "SortBy": "PrimaryContainer"}, "SortBy 'PrimaryContainer' is a structure"),
    ],
)
def test_client_gets_an_error_that_names_the_value(server: LocalServer, members: dict[str, str], message: str) -> None:
    with pytest.raises(ClientError, match=message) as caught:
        server.sagemaker.search(**members)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
