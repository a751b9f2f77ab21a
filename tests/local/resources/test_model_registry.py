"""The model registry without hosts: packages, versions, groups, policies, and models of packages."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.protocols.validation import validate
from microjobs_orchestrator.local.resources.model_registry.create import create
from microjobs_orchestrator.local.resources.models.containers import list_containers
from microjobs_orchestrator.local.resources.operations import Handler, load_operations
from microjobs_orchestrator.local.services.sagemaker import SageMaker
from microjobs_orchestrator.local.temporary_credentials import HOME_CALLER
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import FakeRuntime
from tests.local.resources.package_requests import GROUP, make_package_request

CONTAINER = {"Image": "image", "ModelDataUrl": "s3://bucket/in/a"}
INSTANCE_TYPES = ["ml.m5.large"]
UNVERSIONED_PACKAGE = {
    "InferenceSpecification": {
        "Containers": [CONTAINER],
        "SupportedTransformInstanceTypes": INSTANCE_TYPES,
        "SupportedRealtimeInferenceInstanceTypes": INSTANCE_TYPES,
    }
}
GROUP_ARN = format_arn(f"model-package-group/{GROUP}")


class ModelRegistry:
    """Calls the operations of a server, after a check that botocore's model accepts the request."""

    def __init__(self, parts: ServerParts) -> None:
        self.parts = parts
        self._handlers: Mapping[str, Handler] = SageMaker(
            parts.context, load_operations(parts.context, parts.registry)
        ).list_handlers()
        self.call("CreateModelPackageGroup", ModelPackageGroupName=GROUP)

    def call(self, operation: str, **members: Any) -> dict[str, Any]:
        validate(load_operation_model("sagemaker", operation), members)
        return dict(self._handlers[operation](members))

    def add(self, **members: Any) -> str:
        """Register a version in the group; return its ARN."""
        specification = {"InferenceSpecification": {"Containers": [CONTAINER]}}
        request = {"ModelPackageGroupName": GROUP, **({} if "SourceUri" in members else specification), **members}
        return str(self.call("CreateModelPackage", **request)["ModelPackageArn"])

    def describe(self, name: str) -> dict[str, Any]:
        return self.call("DescribeModelPackage", ModelPackageName=name)

    def list(self, **members: Any) -> list[dict[str, Any]]:
        summaries: list[dict[str, Any]] = self.call("ListModelPackages", **members)["ModelPackageSummaryList"]
        return summaries

    def read_error(self, operation: str, **members: Any) -> ServiceError:
        """Send a request that the server must refuse; return the error."""
        with pytest.raises(ServiceError) as caught:
            self.call(operation, **members)
        return caught.value


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[ModelRegistry]:
    home = Home(tmp_path / "home")
    home.create()
    runtime = FakeRuntime()
    parts = ServerParts.from_home(home, runtime)
    parts.put("in/a", b"data")
    yield ModelRegistry(parts)
    parts.close()
    runtime.close()


# --- registration ---


def test_every_accepted_member_is_described(registry: ModelRegistry) -> None:
    request = make_package_request("CreateModelPackage")
    description = registry.describe(registry.add(**request))
    etag = description["InferenceSpecification"]["Containers"][0]["ModelDataSource"]["S3DataSource"]["ETag"]
    expected = {name: value for name, value in request.items() if name != "ClientToken"}
    for specification in (expected["InferenceSpecification"], *expected["AdditionalInferenceSpecifications"]):
        specification["Containers"][0]["ModelDataSource"]["S3DataSource"]["ETag"] = etag
    assert expected.items() <= description.items()
    assert description["ModelPackageVersion"] == 1
    assert description["ModelPackageStatus"] == "Completed"
    assert description["ModelPackageStatusDetails"] == {"ValidationStatuses": [], "ImageScanStatuses": []}
    assert description["CreatedBy"] == {"IamIdentity": {"Arn": HOME_CALLER.arn, "PrincipalId": HOME_CALLER.user_id}}
    assert "ModelPackageName" not in description


def test_every_accepted_member_is_updated(registry: ModelRegistry) -> None:
    registry.add()
    request = make_package_request("UpdateModelPackage")
    del request["CustomerMetadataPropertiesToRemove"]
    assert registry.call("UpdateModelPackage", **request) == {"ModelPackageArn": request["ModelPackageArn"]}
    description = registry.describe(f"{GROUP}/1")
    specification = description.pop("InferenceSpecification")
    (addition,) = description.pop("AdditionalInferenceSpecifications")
    for name in ("Name", "Description"):
        assert addition.pop(name) == request["AdditionalInferenceSpecificationsToAdd"][0][name]
    assert addition == specification
    excluded_names = ("ClientToken", "InferenceSpecification", "AdditionalInferenceSpecificationsToAdd")
    assert {name: value for name, value in request.items() if name not in excluded_names}.items() <= description.items()


def test_request_of_the_server_itself_is_registered(registry: ModelRegistry) -> None:
    """The server calls `create` without a client's request, for example for a model that is registered in MLflow."""
    record = create(registry.parts.context, {"ModelPackageGroupName": GROUP_ARN, **UNVERSIONED_PACKAGE})
    assert (record.name, record.version, record.arn) == (GROUP, 1, format_arn(f"model-package/{GROUP}/1"))
    assert registry.describe(record.arn)["ModelPackageGroupName"] == GROUP


def test_versions_count_up_and_are_never_reused(registry: ModelRegistry) -> None:
    arns = [registry.add() for _ in range(3)]
    assert arns == [format_arn(f"model-package/{GROUP}/{version}") for version in (1, 2, 3)]
    for arn in arns[1:]:
        registry.call("DeleteModelPackage", ModelPackageName=arn)
    assert registry.add().endswith("/4")
    assert [item["ModelPackageVersion"] for item in registry.list(ModelPackageGroupName=GROUP)] == [1, 4]


def test_versions_of_concurrent_requests_are_different(registry: ModelRegistry) -> None:
    arns: list[str] = []
    threads = [threading.Thread(target=lambda: arns.append(registry.add())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(arns)) == 8
    assert max(item["ModelPackageVersion"] for item in registry.list(ModelPackageType="Versioned")) == 8


def test_package_has_its_own_name_or_a_group(registry: ModelRegistry) -> None:
    arn = registry.call("CreateModelPackage", ModelPackageName="own", **UNVERSIONED_PACKAGE)["ModelPackageArn"]
    assert arn == format_arn("model-package/own")
    for name in ("own", arn):
        description = registry.describe(name)
        assert (description["ModelPackageName"], "ModelApprovalStatus" in description) == ("own", False)
    error = registry.read_error(
        "CreateModelPackage", ModelPackageName="own", ModelPackageGroupName=GROUP, **UNVERSIONED_PACKAGE
    )
    assert error.message.startswith("The request has ModelPackageName and ModelPackageGroupName:")
    assert "The request has no name" in registry.read_error("CreateModelPackage", **UNVERSIONED_PACKAGE).message


def test_taken_name_is_reported_as_the_sdk_expects(registry: ModelRegistry) -> None:
    registry.call("CreateModelPackage", ModelPackageName="own", **UNVERSIONED_PACKAGE)
    error = registry.read_error("CreateModelPackage", ModelPackageName="own", **UNVERSIONED_PACKAGE)
    assert (error.code, "ModelPackage already exists" in error.message) == ("ValidationException", True)
    error = registry.read_error("CreateModelPackageGroup", ModelPackageGroupName=GROUP)
    assert (error.code, error.message) == ("ValidationException", f"Model Package Group already exists: {GROUP_ARN}.")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "needs an InferenceSpecification"),
        ({"InferenceSpecification": {"Containers": [CONTAINER]}}, "SupportedTransformInstanceTypes and Supported"),
        (
            {
                "InferenceSpecification": {
                    **UNVERSIONED_PACKAGE["InferenceSpecification"],
                    "Containers": [{**CONTAINER, "Environment": {"A": "b"}}],
                }
            },
            "Environment cannot be set",
        ),
    ],
)
def test_invalid_package_without_versions_is_refused(
    registry: ModelRegistry, members: dict[str, Any], message: str
) -> None:
    assert message in registry.read_error("CreateModelPackage", ModelPackageName="own", **members).message


def test_tags_of_a_version_are_refused(registry: ModelRegistry) -> None:
    error = registry.read_error("CreateModelPackage", ModelPackageGroupName=GROUP, Tags=[{"Key": "k", "Value": "v"}])
    assert "set the tags of the group" in error.message


def test_missing_resources_are_reported_as_clients_expect(registry: ModelRegistry) -> None:
    package_arn, group_arn = format_arn("model-package/no/1"), format_arn("model-package-group/no")
    for operation, members, message in (
        ("DescribeModelPackage", {"ModelPackageName": package_arn}, f"ModelPackage {package_arn} does not exist."),
        ("DescribeModelPackage", {"ModelPackageName": "no/1"}, f"ModelPackage {package_arn} does not exist."),
        ("DescribeModelPackage", {"ModelPackageName": GROUP_ARN}, f"ModelPackage {GROUP_ARN} does not exist."),
        ("UpdateModelPackage", {"ModelPackageArn": package_arn}, f"ModelPackage {package_arn} does not exist."),
        (
            "DescribeModelPackageGroup",
            {"ModelPackageGroupName": "no"},
            f"ModelPackageGroup {group_arn} does not exist.",
        ),
        ("ListModelPackages", {"ModelPackageGroupName": group_arn}, f"ModelPackageGroup {group_arn} does not exist."),
        ("CreateModelPackage", {"ModelPackageGroupName": "no"}, f"ModelPackageGroup {group_arn} does not exist."),
        (
            "GetModelPackageGroupPolicy",
            {"ModelPackageGroupName": "no"},
            f"Cannot find Model Package Group: {group_arn}.",
        ),
        ("GetModelPackageGroupPolicy", {"ModelPackageGroupName": GROUP}, f"policy for: {GROUP_ARN}."),
    ):
        error = registry.read_error(operation, **members)
        assert (error.code, error.message.endswith(message)) == ("ValidationException", True), error.message


# --- repeated requests ---


def test_repeated_request_with_a_token_registers_once(registry: ModelRegistry) -> None:
    arns = {registry.add(ClientToken="token")}
    (registry.parts.home.buckets / "bucket" / "in" / "a").unlink()  # the repeated request does not read the object
    arns.add(registry.add(ClientToken="token"))
    registry.parts.put("in/a", b"data")
    assert len(arns) == 1
    assert len(registry.list(ModelPackageGroupName=GROUP)) == 1
    error = registry.read_error("CreateModelPackage", ModelPackageGroupName=GROUP, ClientToken="token", Domain="other")
    assert error.code == "ConflictException"
    registry.call("DeleteModelPackage", ModelPackageName=arns.pop())
    assert registry.add(ClientToken="token").endswith("/2")


def test_repeated_update_with_a_token_changes_nothing(registry: ModelRegistry) -> None:
    arn = registry.add()
    additions = [{"Name": "other", "Containers": [CONTAINER]}]
    for _ in range(2):
        registry.call(
            "UpdateModelPackage", ModelPackageArn=arn, ClientToken="t", AdditionalInferenceSpecificationsToAdd=additions
        )
    assert len(registry.describe(arn)["AdditionalInferenceSpecifications"]) == 1
    error = registry.read_error(
        "UpdateModelPackage", ModelPackageArn=arn, AdditionalInferenceSpecificationsToAdd=additions
    )
    assert "must be unique; repeated: 'other'" in error.message


# --- updates ---


def test_version_is_approved(registry: ModelRegistry) -> None:
    arn = registry.add()
    assert registry.describe(arn)["ModelApprovalStatus"] == "PendingManualApproval"
    registry.call("UpdateModelPackage", ModelPackageArn=arn, ModelApprovalStatus="Approved", ApprovalDescription="good")
    description = registry.describe(arn)
    assert (description["ModelApprovalStatus"], description["ApprovalDescription"]) == ("Approved", "good")
    assert [item["ModelApprovalStatus"] for item in registry.list(ModelPackageGroupName=GROUP)] == ["Approved"]


def test_package_without_versions_has_no_approval_status(registry: ModelRegistry) -> None:
    arn = registry.call(
        "CreateModelPackage", ModelPackageName="own", ModelApprovalStatus="PendingManualApproval", **UNVERSIONED_PACKAGE
    )["ModelPackageArn"]
    assert "ModelApprovalStatus" not in registry.describe(arn)
    error = registry.read_error("UpdateModelPackage", ModelPackageArn=arn, ModelApprovalStatus="Approved")
    assert "it has no ModelApprovalStatus" in error.message


def test_metadata_properties_are_added_replaced_and_removed(registry: ModelRegistry) -> None:
    arn = registry.add(CustomerMetadataProperties={"a": "1", "b": "2"})
    registry.call(
        "UpdateModelPackage",
        ModelPackageArn=arn,
        CustomerMetadataProperties={"b": "3", "c": "4"},
        CustomerMetadataPropertiesToRemove=["a"],
    )
    assert registry.describe(arn)["CustomerMetadataProperties"] == {"b": "3", "c": "4"}
    properties = {f"k{number}": "v" for number in range(49)}
    error = registry.read_error("UpdateModelPackage", ModelPackageArn=arn, CustomerMetadataProperties=properties)
    assert "it would have 51" in error.message


def test_number_of_specifications_is_limited(registry: ModelRegistry) -> None:
    specifications = [{"Name": f"s{number}", "Containers": [CONTAINER]} for number in range(15)]
    arn = registry.add(AdditionalInferenceSpecifications=specifications)
    additions = [{"Name": "more", "Containers": [CONTAINER]}]
    error = registry.read_error(
        "UpdateModelPackage", ModelPackageArn=arn, AdditionalInferenceSpecificationsToAdd=additions
    )
    assert "it would have 16" in error.message


def test_archived_model_card_keeps_its_content(registry: ModelRegistry) -> None:
    arn = registry.add(ModelCard={"ModelCardContent": "{}", "ModelCardStatus": "Draft"})
    registry.call("UpdateModelPackage", ModelPackageArn=arn, ModelCard={"ModelCardStatus": "Archived"})
    assert registry.describe(arn)["ModelCard"] == {"ModelCardContent": "{}", "ModelCardStatus": "Archived"}
    error = registry.read_error("UpdateModelPackage", ModelPackageArn=arn, ModelCard={"ModelCardContent": "[]"})
    assert (error.code, "Archived state" in error.message) == ("ConflictException", True)


def test_metadata_of_a_model_card_can_be_described_alone(registry: ModelRegistry) -> None:
    content = {"intended_uses": {"risk_rating": "Low", "purpose_of_model": "secret"}, "model_overview": {"model_id": 1}}
    arn = registry.add(ModelCard={"ModelCardContent": json.dumps(content), "ModelCardStatus": "Draft"})
    description = registry.call("DescribeModelPackage", ModelPackageName=arn, IncludedData="MetadataOnly")
    assert json.loads(description["ModelCard"]["ModelCardContent"]) == {
        "model_overview": {"model_id": 1},
        "intended_uses": {"risk_rating": "Low"},
    }
    assert json.loads(registry.describe(arn)["ModelCard"]["ModelCardContent"]) == content


# --- lists ---


def test_packages_are_filtered_by_type_group_and_status(registry: ModelRegistry) -> None:
    registry.call("CreateModelPackageGroup", ModelPackageGroupName="other")
    pending_arn, approved_arn = registry.add(), registry.add(ModelApprovalStatus="Approved")
    other_group_arn = registry.add(ModelPackageGroupName="other", ModelApprovalStatus="Approved")
    unversioned_arn = registry.call("CreateModelPackage", ModelPackageName="own", **UNVERSIONED_PACKAGE)[
        "ModelPackageArn"
    ]

    def list_arns(**members: Any) -> list[str]:
        return [item["ModelPackageArn"] for item in registry.list(**members)]

    assert list_arns() == [unversioned_arn]
    assert list_arns(ModelPackageType="Versioned") == [pending_arn, approved_arn, other_group_arn]
    assert list_arns(ModelPackageType="Both", SortOrder="Descending") == [
        unversioned_arn,
        other_group_arn,
        approved_arn,
        pending_arn,
    ]
    assert list_arns(ModelPackageGroupName=GROUP_ARN) == [pending_arn, approved_arn]
    assert list_arns(ModelPackageType="Versioned", ModelApprovalStatus="Approved") == [approved_arn, other_group_arn]
    assert list_arns(ModelPackageType="Both", NameContains="ther", SortBy="Name") == [other_group_arn]
    creation_time = registry.describe(approved_arn)["CreationTime"]
    assert list_arns(ModelPackageType="Both", CreationTimeAfter=creation_time, CreationTimeBefore=creation_time) == [
        approved_arn
    ]


@pytest.mark.parametrize("sort_by", ["Name", "CreationTime"])
@pytest.mark.parametrize("order", ["Ascending", "Descending"])
def test_versions_of_a_group_have_pages(registry: ModelRegistry, sort_by: str, order: str) -> None:
    for _ in range(5):
        registry.add()
    request: dict[str, Any] = {"ModelPackageGroupName": GROUP, "SortBy": sort_by, "SortOrder": order, "MaxResults": 2}
    versions: list[int] = []
    while True:
        page = registry.call("ListModelPackages", **request)
        versions += [item["ModelPackageVersion"] for item in page["ModelPackageSummaryList"]]
        if "NextToken" not in page:
            break
        request["NextToken"] = page["NextToken"]
    assert versions == sorted(range(1, 6), reverse=order == "Descending")


def test_packages_are_described_in_batches(registry: ModelRegistry) -> None:
    arn, missing_arn = registry.add(ModelPackageDescription="first"), format_arn(f"model-package/{GROUP}/9")
    response = registry.call("BatchDescribeModelPackage", ModelPackageArnList=[arn, missing_arn])
    summary = response["ModelPackageSummaries"][arn]
    assert (summary["ModelPackageVersion"], summary["ModelPackageDescription"]) == (1, "first")
    assert response["BatchDescribeModelPackageErrorMap"] == {
        missing_arn: {
            "ErrorCode": "ValidationException",
            "ErrorResponse": f"ModelPackage {missing_arn} does not exist.",
        }
    }


# --- groups ---


def test_group_with_packages_cannot_be_deleted(registry: ModelRegistry) -> None:
    arn = registry.add()
    error = registry.read_error("DeleteModelPackageGroup", ModelPackageGroupName=GROUP)
    assert (error.code, "contains model packages" in error.message) == ("ConflictException", True)
    registry.call("DeleteModelPackage", ModelPackageName=arn)
    registry.call("DeleteModelPackageGroup", ModelPackageGroupName=GROUP_ARN)
    assert registry.call("ListModelPackageGroups")["ModelPackageGroupSummaryList"] == []


def test_policy_of_a_group_is_stored_and_deleted(registry: ModelRegistry) -> None:
    policy = json.dumps({"Version": "2012-10-17", "Statement": []})
    response = registry.call("PutModelPackageGroupPolicy", ModelPackageGroupName=GROUP, ResourcePolicy=policy)
    assert response == {"ModelPackageGroupArn": GROUP_ARN}
    assert registry.call("GetModelPackageGroupPolicy", ModelPackageGroupName=GROUP) == {"ResourcePolicy": policy}
    registry.call("DeleteModelPackageGroupPolicy", ModelPackageGroupName=GROUP)
    assert "Cannot find" in registry.read_error("DeleteModelPackageGroupPolicy", ModelPackageGroupName=GROUP).message
    error = registry.read_error("PutModelPackageGroupPolicy", ModelPackageGroupName=GROUP, ResourcePolicy="{")
    assert "is not a JSON document" in error.message


# --- sources ---


def test_package_is_cloned(registry: ModelRegistry) -> None:
    specifications = [{"Name": "other", "Containers": [CONTAINER]}]
    source_arn = registry.add(AdditionalInferenceSpecifications=specifications)
    clone = registry.describe(registry.add(SourceUri=source_arn))
    original = registry.describe(source_arn)
    for name in ("InferenceSpecification", "AdditionalInferenceSpecifications"):
        assert clone[name] == original[name]
    assert clone["SourceUri"] == source_arn


def test_model_is_registered(registry: ModelRegistry) -> None:
    model_arn = registry.call(
        "CreateModel", ModelName="m", PrimaryContainer=CONTAINER, ExecutionRoleArn="arn:aws:iam::000000000000:role/r"
    )["ModelArn"]
    (container,) = registry.describe(registry.add(SourceUri=model_arn))["InferenceSpecification"]["Containers"]
    assert container == {**CONTAINER, "ModelDataETag": "8d777f385d3dfec8815d20f7496026dc"}
    absent_arn = format_arn("model/absent")
    error = registry.read_error("CreateModelPackage", ModelPackageGroupName=GROUP, SourceUri=absent_arn)
    assert error.message == f'Could not find model "{absent_arn}", which is the SourceUri.'


def test_source_and_specification_cannot_be_combined(registry: ModelRegistry) -> None:
    request = {"SourceUri": "s3://bucket/in", **UNVERSIONED_PACKAGE}
    for operation, name in (
        ("CreateModelPackage", {"ModelPackageGroupName": GROUP}),
        ("UpdateModelPackage", {"ModelPackageArn": registry.add()}),
    ):
        assert "cannot be combined" in registry.read_error(operation, **name, **request).message
    assert registry.describe(registry.add(SourceUri="s3://bucket/in"))["SourceUri"] == "s3://bucket/in"


# --- models of packages ---


def create_model(registry: ModelRegistry, **container: Any) -> None:
    role = "arn:aws:iam::000000000000:role/r"
    registry.call("CreateModel", ModelName="m", PrimaryContainer=container, ExecutionRoleArn=role)


def find_container(registry: ModelRegistry) -> Mapping[str, Any]:
    """Return the definition of the model's only container, as its hosts use it."""
    (container,) = find_containers(registry)
    return container


def find_containers(registry: ModelRegistry) -> Sequence[Mapping[str, Any]]:
    record = registry.parts.context.state.get("model", "m")
    assert record is not None
    return list_containers(record.request)


def test_model_has_the_container_of_its_package(registry: ModelRegistry) -> None:
    package_container = {**CONTAINER, "Environment": {"A": "package", "B": "package"}}
    arn = registry.add(ModelApprovalStatus="Approved", InferenceSpecification={"Containers": [package_container]})
    create_model(registry, ModelPackageName=arn, Environment={"B": "model"})
    registry.call("DeleteModelPackage", ModelPackageName=arn)
    container = find_container(registry)
    assert (container["Image"], container["ModelDataUrl"]) == ("image", "s3://bucket/in/a")
    assert container["Environment"] == {"A": "package", "B": "model"}
    description = registry.call("DescribeModel", ModelName="m")["PrimaryContainer"]
    assert description == {"ModelPackageName": arn, "Environment": {"B": "model"}}


def test_model_has_the_named_specification(registry: ModelRegistry) -> None:
    specification = {"Name": "other", "Containers": [{"Image": "other"}]}
    registry.add(ModelApprovalStatus="Approved", AdditionalInferenceSpecifications=[specification])
    create_model(registry, ModelPackageName=f"{GROUP}/1", InferenceSpecificationName="other")
    assert find_container(registry)["Image"] == "other"


def test_model_has_all_containers_of_its_packages(registry: ModelRegistry) -> None:
    package_containers = [{**CONTAINER, "ContainerHostname": name} for name in ("scale", "predict")]
    arn = registry.add(ModelApprovalStatus="Approved", InferenceSpecification={"Containers": package_containers})
    containers = [
        {"ModelPackageName": arn, "Environment": {"B": "model"}},
        {"Image": "last", "ContainerHostname": "label"},
    ]
    registry.call(
        "CreateModel", ModelName="m", Containers=containers, ExecutionRoleArn="arn:aws:iam::000000000000:role/r"
    )
    host_containers = find_containers(registry)
    assert [container["ContainerHostname"] for container in host_containers] == ["scale", "predict", "label"]
    assert [container.get("Environment") for container in host_containers] == [{"B": "model"}, {"B": "model"}, None]


def test_package_of_a_model_has_all_its_containers(registry: ModelRegistry) -> None:
    containers = [{"Image": name, "ContainerHostname": f"host-{name}"} for name in ("a", "b")]
    registry.call(
        "CreateModel", ModelName="m", Containers=containers, ExecutionRoleArn="arn:aws:iam::000000000000:role/r"
    )
    arn = registry.add(SourceUri=registry.call("DescribeModel", ModelName="m")["ModelArn"])
    description = registry.call("DescribeModelPackage", ModelPackageName=arn)["InferenceSpecification"]
    assert description["Containers"] == containers


@pytest.mark.parametrize("status", ["PendingManualApproval", "Rejected"])
def test_version_that_is_not_approved_cannot_be_deployed(registry: ModelRegistry, status: str) -> None:
    arn = registry.add(ModelApprovalStatus=status)
    with pytest.raises(ServiceError, match=f"cannot be deployed, because its ModelApprovalStatus is {status}"):
        create_model(registry, ModelPackageName=arn)


def test_package_without_versions_needs_no_approval(registry: ModelRegistry) -> None:
    registry.call("CreateModelPackage", ModelPackageName="own", **UNVERSIONED_PACKAGE)
    create_model(registry, ModelPackageName="own")
    assert find_container(registry)["Image"] == "image"


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"ModelPackageName": f"{GROUP}/9"}, "does not exist"),
        ({"ModelPackageName": f"{GROUP}/1", "Image": "i"}, "cannot be combined with Image"),
        ({"ModelPackageName": f"{GROUP}/1", "InferenceSpecificationName": "no"}, "no inference specification 'no'"),
        ({"ModelPackageName": f"{GROUP}/2"}, "has no InferenceSpecification"),
        ({"ModelPackageName": f"{GROUP}/3"}, "must have an Image"),
        ({"Environment": {}}, "must have an Image"),
    ],
)
def test_model_of_an_unusable_package_is_refused(
    registry: ModelRegistry, container: dict[str, Any], message: str
) -> None:
    registry.add(ModelApprovalStatus="Approved")
    registry.add(ModelApprovalStatus="Approved", SourceUri="s3://bucket/in")
    specification_without_image = {"Containers": [{"ModelDataUrl": "s3://bucket/in/a"}]}
    registry.add(ModelApprovalStatus="Approved", InferenceSpecification=specification_without_image)
    with pytest.raises(ServiceError, match=message):
        create_model(registry, **container)


# --- model data ---


def test_missing_model_data_is_refused(registry: ModelRegistry) -> None:
    containers = [{"Image": "i", "ModelDataUrl": "s3://bucket/absent"}]
    error = registry.read_error(
        "CreateModelPackage", ModelPackageGroupName=GROUP, InferenceSpecification={"Containers": containers}
    )
    assert error.message.startswith("Could not find model data at s3://bucket/absent")


def test_changed_model_data_is_refused(registry: ModelRegistry) -> None:
    arn = registry.add(ModelApprovalStatus="Approved")
    registry.parts.put("in/a", b"other")
    with pytest.raises(ServiceError, match="model data at s3://bucket/in/a has changed"):
        create_model(registry, ModelPackageName=arn)
    registry.parts.put("in/a", b"data")
    create_model(registry, ModelPackageName=arn)


def test_two_sources_of_model_data_are_refused(registry: ModelRegistry) -> None:
    source = {"S3Uri": "s3://bucket/in/a", "S3DataType": "S3Object", "CompressionType": "None"}
    container = {**CONTAINER, "ModelDataSource": {"S3DataSource": source}}
    with pytest.raises(ServiceError, match="ModelDataUrl and ModelDataSource cannot be combined"):
        create_model(registry, **container)
    with pytest.raises(ServiceError, match="ModelDataUrl and ModelDataSource cannot be combined"):
        registry.add(InferenceSpecification={"Containers": [container]})


@pytest.mark.parametrize("key", ["folder/a", "folder/new"])
def test_changed_folder_is_refused(registry: ModelRegistry, key: str) -> None:
    registry.parts.put("folder/a", b"data")
    source = {"S3Uri": "s3://bucket/folder/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    containers = [{"Image": "i", "ModelDataSource": {"S3DataSource": source}}]
    arn = registry.add(ModelApprovalStatus="Approved", InferenceSpecification={"Containers": containers})
    registry.parts.put(key, b"other")
    with pytest.raises(ServiceError, match="model data at s3://bucket/folder/ has changed"):
        create_model(registry, ModelPackageName=arn)


def test_request_with_another_etag_than_the_data_is_refused(registry: ModelRegistry) -> None:
    containers = [{**CONTAINER, "ModelDataETag": "0" * 32}]
    error = registry.read_error(
        "CreateModelPackage", ModelPackageGroupName=GROUP, InferenceSpecification={"Containers": containers}
    )
    assert "its ETag is 8d777f385d3dfec8815d20f7496026dc" in error.message
