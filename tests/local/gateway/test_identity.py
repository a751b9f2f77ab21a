"""STS, IAM and ECR with real clients: temporary credentials, roles, repositories."""

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from microjobs_orchestrator.local import temporary_credentials
from microjobs_orchestrator.local.identity import Credentials
from microjobs_orchestrator.local.temporary_credentials import Caller
from tests.local.gateway.conftest import CREDENTIALS, MakeClient
from tests.local.gateway.test_application import get_error, send

ROLE = "arn:aws:iam::000000000000:role/microjobs"
TRUST_POLICY = json.dumps({"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"}]})
MANAGED_POLICY_ARN = "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"


def make_session_arguments(answer: dict[str, Any], **changes: str) -> dict[str, str]:
    """Return the arguments of a client that uses temporary credentials."""
    session_credentials = answer["Credentials"]
    return {
        "aws_access_key_id": session_credentials["AccessKeyId"],
        "aws_secret_access_key": session_credentials["SecretAccessKey"],
        "aws_session_token": session_credentials["SessionToken"],
        **changes,
    }


# --- STS ---


def test_assumed_role_is_the_caller(make_client: MakeClient) -> None:
    sts = make_client("sts")
    answer = sts.assume_role(RoleArn=ROLE, RoleSessionName="abc", DurationSeconds=900)
    identity = make_client("sts", **make_session_arguments(answer)).get_caller_identity()
    assert identity["Arn"] == answer["AssumedRoleUser"]["Arn"] == "arn:aws:sts::000000000000:assumed-role/microjobs/abc"
    assert identity["UserId"] == f"{make_client('iam').get_role(RoleName='microjobs')['Role']['RoleId']}:abc"
    assert 890 < answer["Credentials"]["Expiration"].timestamp() - time.time() <= 900
    assert sts.get_caller_identity()["Arn"].endswith(":user/microjobs")  # the session has no effect on other requests


@pytest.mark.parametrize("service", ["sagemaker", "s3", "ecr"])
def test_session_credentials_are_accepted_in_each_protocol(make_client: MakeClient, service: str) -> None:
    calls: dict[str, Callable[[Any], Any]] = {
        "sagemaker": lambda service_client: service_client.list_endpoints(),
        "s3": lambda service_client: service_client.get_object(Bucket="bucket", Key="key"),
        "ecr": lambda service_client: service_client.get_authorization_token(),
    }
    session_arguments = make_session_arguments(make_client("sts").get_session_token())
    calls[service](make_client(service, **session_arguments))


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_address_presigned_with_session_credentials_is_accepted(
    make_client: MakeClient, address: str, version: str
) -> None:
    session_arguments = make_session_arguments(make_client("sts").get_session_token())
    for token_override in ({}, {"aws_session_token": session_arguments["aws_session_token"][:-8] + "AAAAAAA="}):
        s3 = make_client("s3", **session_arguments | token_override, config=_make_config(version))
        url = s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"})
        assert send(address, url.removeprefix(address))[0] == (403 if token_override else 200)


def _make_config(version: str) -> Any:
    from botocore.config import Config

    return Config(signature_version=version, s3={"addressing_style": "path"})


def _make_forged_session() -> dict[str, Any]:
    return {"Credentials": temporary_credentials.issue(Credentials("other", "home"), Caller(ROLE, "x"), seconds=900)}


def _make_expired_session() -> dict[str, Any]:
    return {"Credentials": temporary_credentials.issue(CREDENTIALS, Caller(ROLE, "x"), seconds=-1)}


def _make_extended_session() -> dict[str, Any]:
    """Return expired credentials with a forged token: its expiry is later, but its signature is the original one."""
    session_credentials = dict(temporary_credentials.issue(CREDENTIALS, Caller(ROLE, "x"), seconds=-1))
    content = base64.b64decode(str(session_credentials["SessionToken"]))
    changed_content = content[:-32].replace(b'"expiry":1', b'"expiry":9') + content[-32:]
    return {"Credentials": {**session_credentials, "SessionToken": base64.b64encode(changed_content).decode()}}


def _make_valid_session() -> dict[str, Any]:
    return {"Credentials": temporary_credentials.issue(CREDENTIALS, Caller(ROLE, "x"), seconds=900)}


@pytest.mark.parametrize(
    ("make_session", "changes", "code"),
    [
        (_make_forged_session, {}, "UnrecognizedClientException"),
        (_make_expired_session, {}, "ExpiredTokenException"),
        (_make_extended_session, {}, "UnrecognizedClientException"),
        (_make_valid_session, {"aws_session_token": "nonsense!"}, "UnrecognizedClientException"),
        (_make_valid_session, {"aws_session_token": ""}, "UnrecognizedClientException"),
        (_make_valid_session, {"aws_access_key_id": "ASIAOTHER"}, "UnrecognizedClientException"),
        (_make_valid_session, {"aws_access_key_id": CREDENTIALS.access_key_id}, "UnrecognizedClientException"),
        (_make_valid_session, {"aws_secret_access_key": "other"}, "InvalidSignatureException"),
        (_make_valid_session, {"aws_secret_access_key": CREDENTIALS.secret_access_key}, "InvalidSignatureException"),
    ],
)
def test_forged_or_expired_session_is_refused(
    make_client: MakeClient, make_session: Callable[[], dict[str, Any]], changes: dict[str, str], code: str
) -> None:
    session_arguments = make_session_arguments(make_session(), **changes)
    assert get_error(make_client("sagemaker", **session_arguments).list_endpoints)[0] == code


def test_session_cannot_create_a_session_token(make_client: MakeClient) -> None:
    session_arguments = make_session_arguments(make_client("sts").assume_role(RoleArn=ROLE, RoleSessionName="abc"))
    assert get_error(make_client("sts", **session_arguments).get_session_token)[0] == "AccessDenied"


def test_deleted_role_cannot_be_assumed(make_client: MakeClient) -> None:
    make_client("iam").delete_role(RoleName="gone")
    arn = "arn:aws:iam::000000000000:role/gone"
    assert get_error(make_client("sts").assume_role, RoleArn=arn, RoleSessionName="abc")[0] == "AccessDenied"


def test_any_access_key_belongs_to_the_account_of_the_server(make_client: MakeClient) -> None:
    assert make_client("sts").get_access_key_info(AccessKeyId="AKIAIOSFODNN7EXAMPLE")["Account"] == "000000000000"


# --- IAM ---


def test_role_is_stored_until_it_is_deleted(make_client: MakeClient) -> None:
    iam = make_client("iam")
    role = iam.create_role(
        RoleName="made",
        Path="/team/",
        AssumeRolePolicyDocument=TRUST_POLICY,
        Description="a % role",
        MaxSessionDuration=7200,
        Tags=[{"Key": "a", "Value": "b"}],
    )["Role"]
    assert role["Arn"] == "arn:aws:iam::000000000000:role/team/made"
    assert (
        get_error(iam.create_role, RoleName="made", AssumeRolePolicyDocument=TRUST_POLICY)[0] == "EntityAlreadyExists"
    )
    iam.update_role(RoleName="made", Description="another")
    iam.update_assume_role_policy(RoleName="made", PolicyDocument='{"Statement": []}')
    iam.tag_role(RoleName="made", Tags=[{"Key": "c", "Value": "d"}])
    iam.untag_role(RoleName="made", TagKeys=["a"])
    updated_role = iam.get_role(RoleName="made")["Role"]
    assert (updated_role["Description"], updated_role["MaxSessionDuration"]) == ("another", 7200)
    assert updated_role["RoleId"] == role["RoleId"]
    assert (updated_role["AssumeRolePolicyDocument"], updated_role["Tags"]) == (
        {"Statement": []},
        [{"Key": "c", "Value": "d"}],
    )
    assert [item["RoleName"] for item in iam.list_roles(PathPrefix="/team/")["Roles"]] == ["made"]
    iam.delete_role(RoleName="made")
    assert get_error(iam.get_role, RoleName="made")[::2] == ("NoSuchEntity", 404)
    assert iam.list_roles(PathPrefix="/team/")["Roles"] == []
    iam.create_role(RoleName="made", AssumeRolePolicyDocument=TRUST_POLICY)
    assert iam.get_role(RoleName="made")["Role"]["RoleId"] != role["RoleId"]


def test_policies_of_a_role_are_stored(make_client: MakeClient) -> None:
    iam = make_client("iam")
    for number in range(3):
        iam.put_role_policy(RoleName="policed", PolicyName=f"p{number}", PolicyDocument='{"Statement": ["%"]}')
    iam.attach_role_policy(RoleName="policed", PolicyArn=MANAGED_POLICY_ARN)
    assert iam.get_role_policy(RoleName="policed", PolicyName="p1")["PolicyDocument"] == {"Statement": ["%"]}
    pages = iam.get_paginator("list_role_policies").paginate(RoleName="policed", PaginationConfig={"PageSize": 2})
    assert [page["PolicyNames"] for page in pages] == [["p0", "p1"], ["p2"]]
    attached = iam.list_attached_role_policies(RoleName="policed")["AttachedPolicies"]
    assert attached == [{"PolicyName": "AmazonSageMakerFullAccess", "PolicyArn": MANAGED_POLICY_ARN}]
    assert iam.list_instance_profiles_for_role(RoleName="policed")["InstanceProfiles"] == []
    assert get_error(iam.delete_role, RoleName="policed")[0] == "DeleteConflict"
    for number in range(3):
        iam.delete_role_policy(RoleName="policed", PolicyName=f"p{number}")
    iam.detach_role_policy(RoleName="policed", PolicyArn=MANAGED_POLICY_ARN)
    iam.delete_role(RoleName="policed")


@pytest.mark.parametrize(
    ("operation", "members", "code"),
    [
        ("get_role_policy", {"PolicyName": "absent"}, "NoSuchEntity"),
        ("delete_role_policy", {"PolicyName": "absent"}, "NoSuchEntity"),
        ("detach_role_policy", {"PolicyArn": MANAGED_POLICY_ARN}, "NoSuchEntity"),
        ("put_role_policy", {"PolicyName": "p", "PolicyDocument": "no JSON"}, "MalformedPolicyDocument"),
        ("list_role_policies", {"Marker": "x"}, "ValidationError"),
    ],
)
def test_invalid_policy_request_is_refused(
    make_client: MakeClient, operation: str, members: dict[str, str], code: str
) -> None:
    assert get_error(getattr(make_client("iam"), operation), RoleName="some", **members)[0] == code


def test_every_action_is_simulated_as_allowed(make_client: MakeClient) -> None:
    simulate = make_client("iam").get_paginator("simulate_principal_policy")
    pages = simulate.paginate(PolicySourceArn=ROLE, ActionNames=["s3:a", "s3:b"], ResourceArns=["x", "y"])
    results = [result for page in pages for result in page["EvaluationResults"]]
    assert [(item["EvalActionName"], item["EvalResourceName"]) for item in results] == [
        ("s3:a", "x"),
        ("s3:a", "y"),
        ("s3:b", "x"),
        ("s3:b", "y"),
    ]
    assert {item["EvalDecision"] for item in results} == {"allowed"}


# --- ECR ---


def test_repositories_list_images_of_the_engine(make_client: MakeClient) -> None:
    ecr = make_client("ecr")
    repositories = {item["repositoryName"]: item for item in ecr.describe_repositories()["repositories"]}
    assert {"microjobs/serve", "tagged"} <= repositories.keys()
    assert repositories["tagged"]["repositoryUri"] == "000000000000.dkr.ecr.us-east-1.amazonaws.com/tagged"
    images = ecr.describe_images(repositoryName="microjobs/serve")["imageDetails"]
    assert [image["imageTags"] for image in images] == [["new"], ["dev", "old"]]
    summaries = ecr.list_images(repositoryName="microjobs/serve", filter={"tagStatus": "TAGGED"})["imageIds"]
    assert [item["imageTag"] for item in summaries] == ["new", "dev", "old"]
    details = ecr.describe_images(repositoryName="microjobs/serve", imageIds=[{"imageTag": "dev"}])["imageDetails"]
    assert [image["imageDigest"] for image in details] == ["sha256:" + "1" * 64]


def test_repository_is_stored_until_it_is_deleted(make_client: MakeClient) -> None:
    ecr = make_client("ecr")
    repository = ecr.create_repository(repositoryName="own/thing", tags=[{"Key": "a", "Value": "b"}])["repository"]
    code = get_error(ecr.create_repository, repositoryName="own/thing")[0]
    assert code == "RepositoryAlreadyExistsException"
    assert ecr.describe_repositories(repositoryNames=["own/thing"])["repositories"] == [repository]
    ecr.tag_resource(resourceArn=repository["repositoryArn"], tags=[{"Key": "c", "Value": "d"}])
    ecr.untag_resource(resourceArn=repository["repositoryArn"], tagKeys=["a"])
    assert ecr.list_tags_for_resource(resourceArn=repository["repositoryArn"])["tags"] == [{"Key": "c", "Value": "d"}]
    assert ecr.list_images(repositoryName="own/thing")["imageIds"] == []
    ecr.delete_repository(repositoryName="own/thing", force=True)
    code = get_error(ecr.describe_repositories, repositoryNames=["own/thing"])[0]
    assert code == "RepositoryNotFoundException"


@pytest.mark.parametrize(
    ("operation", "members", "code"),
    [
        ("delete_repository", {"force": True}, "RepositoryNotEmptyException"),
        ("describe_images", {"imageIds": [{"imageTag": "x"}]}, "ImageNotFoundException"),
        ("describe_images", {"nextToken": "x"}, "InvalidParameterException"),
        ("describe_images", {"registryId": "111122223333"}, "InvalidParameterException"),
        ("get_repository_policy", {}, "RepositoryPolicyNotFoundException"),
        ("get_lifecycle_policy", {}, "LifecyclePolicyNotFoundException"),
    ],
)
def test_invalid_repository_request_is_refused(
    make_client: MakeClient, operation: str, members: dict[str, Any], code: str
) -> None:
    assert get_error(getattr(make_client("ecr"), operation), repositoryName="microjobs/serve", **members)[0] == code
