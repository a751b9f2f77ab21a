"""STS, IAM and ECR with real clients: temporary credentials, roles, repositories."""

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from microjobs_orchestrator.local import sessions
from microjobs_orchestrator.local.identity import Credentials
from microjobs_orchestrator.local.sessions import Caller
from tests.local.gateway.conftest import CREDENTIALS, Client
from tests.local.gateway.test_application import error_of, send

ROLE = "arn:aws:iam::000000000000:role/microjobs"
TRUST = json.dumps({"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"}]})
MANAGED = "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"


def make_session_arguments(answer: dict[str, Any], **changes: str) -> dict[str, str]:
    """Return the arguments of a client that uses temporary credentials."""
    issued = answer["Credentials"]
    return {
        "aws_access_key_id": issued["AccessKeyId"],
        "aws_secret_access_key": issued["SecretAccessKey"],
        "aws_session_token": issued["SessionToken"],
        **changes,
    }


# --- STS ---


def test_assumed_role_is_the_caller(client: Client) -> None:
    sts = client("sts")
    answer = sts.assume_role(RoleArn=ROLE, RoleSessionName="abc", DurationSeconds=900)
    who = client("sts", **make_session_arguments(answer)).get_caller_identity()
    assert who["Arn"] == answer["AssumedRoleUser"]["Arn"] == "arn:aws:sts::000000000000:assumed-role/microjobs/abc"
    assert who["UserId"] == f"{client('iam').get_role(RoleName='microjobs')['Role']['RoleId']}:abc"
    assert 890 < answer["Credentials"]["Expiration"].timestamp() - time.time() <= 900
    assert sts.get_caller_identity()["Arn"].endswith(":user/microjobs")  # the session has no effect on other requests


@pytest.mark.parametrize("service", ["sagemaker", "s3", "ecr"])
def test_session_credentials_are_accepted_in_each_protocol(client: Client, service: str) -> None:
    calls: dict[str, Callable[[Any], Any]] = {
        "sagemaker": lambda service_client: service_client.list_endpoints(),
        "s3": lambda service_client: service_client.get_object(Bucket="bucket", Key="key"),
        "ecr": lambda service_client: service_client.get_authorization_token(),
    }
    session = make_session_arguments(client("sts").get_session_token())
    calls[service](client(service, **session))


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_address_presigned_with_session_credentials_is_accepted(client: Client, address: str, version: str) -> None:
    session = make_session_arguments(client("sts").get_session_token())
    for forged_token in ({}, {"aws_session_token": session["aws_session_token"][:-8] + "AAAAAAA="}):
        s3 = client("s3", **session | forged_token, config=_config(version))
        url = s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"})
        assert send(address, url.removeprefix(address))[0] == (403 if forged_token else 200)


def _config(version: str) -> Any:
    from botocore.config import Config

    return Config(signature_version=version, s3={"addressing_style": "path"})


def _forged() -> dict[str, Any]:
    return {"Credentials": sessions.issue(Credentials("other", "home"), Caller(ROLE, "x"), 900)}


def _expired() -> dict[str, Any]:
    return {"Credentials": sessions.issue(CREDENTIALS, Caller(ROLE, "x"), -1)}


def _extended() -> dict[str, Any]:
    """Return credentials whose token has a changed expiry."""
    issued = dict(sessions.issue(CREDENTIALS, Caller(ROLE, "x"), -1))
    content = base64.b64decode(str(issued["SessionToken"]))
    changed = content[:-32].replace(b'"expiry":1', b'"expiry":9') + content[-32:]
    return {"Credentials": {**issued, "SessionToken": base64.b64encode(changed).decode()}}


def _issued() -> dict[str, Any]:
    return {"Credentials": sessions.issue(CREDENTIALS, Caller(ROLE, "x"), 900)}


@pytest.mark.parametrize(
    ("made", "changes", "code"),
    [
        (_forged, {}, "UnrecognizedClientException"),
        (_expired, {}, "ExpiredTokenException"),
        (_extended, {}, "UnrecognizedClientException"),
        (_issued, {"aws_session_token": "nonsense!"}, "UnrecognizedClientException"),
        (_issued, {"aws_session_token": ""}, "UnrecognizedClientException"),
        (_issued, {"aws_access_key_id": "ASIAOTHER"}, "UnrecognizedClientException"),
        (_issued, {"aws_access_key_id": CREDENTIALS.access_key_id}, "UnrecognizedClientException"),
        (_issued, {"aws_secret_access_key": "other"}, "InvalidSignatureException"),
        (_issued, {"aws_secret_access_key": CREDENTIALS.secret_access_key}, "InvalidSignatureException"),
    ],
)
def test_forged_or_expired_session_is_refused(
    client: Client, made: Callable[[], dict[str, Any]], changes: dict[str, str], code: str
) -> None:
    session = make_session_arguments(made(), **changes)
    assert error_of(client("sagemaker", **session).list_endpoints)[0] == code


def test_session_cannot_create_a_session_token(client: Client) -> None:
    session = make_session_arguments(client("sts").assume_role(RoleArn=ROLE, RoleSessionName="abc"))
    assert error_of(client("sts", **session).get_session_token)[0] == "AccessDenied"


def test_deleted_role_cannot_be_assumed(client: Client) -> None:
    client("iam").delete_role(RoleName="gone")
    arn = "arn:aws:iam::000000000000:role/gone"
    assert error_of(client("sts").assume_role, RoleArn=arn, RoleSessionName="abc")[0] == "AccessDenied"


def test_access_key_belongs_to_the_account_of_the_server(client: Client) -> None:
    assert client("sts").get_access_key_info(AccessKeyId="AKIAIOSFODNN7EXAMPLE")["Account"] == "000000000000"


# --- IAM ---


def test_role_is_stored_until_it_is_deleted(client: Client) -> None:
    iam = client("iam")
    role = iam.create_role(
        RoleName="made",
        Path="/team/",
        AssumeRolePolicyDocument=TRUST,
        Description="a % role",
        MaxSessionDuration=7200,
        Tags=[{"Key": "a", "Value": "b"}],
    )["Role"]
    assert role["Arn"] == "arn:aws:iam::000000000000:role/team/made"
    assert error_of(iam.create_role, RoleName="made", AssumeRolePolicyDocument=TRUST)[0] == "EntityAlreadyExists"
    iam.update_role(RoleName="made", Description="another")
    iam.update_assume_role_policy(RoleName="made", PolicyDocument='{"Statement": []}')
    iam.tag_role(RoleName="made", Tags=[{"Key": "c", "Value": "d"}])
    iam.untag_role(RoleName="made", TagKeys=["a"])
    found = iam.get_role(RoleName="made")["Role"]
    assert (found["Description"], found["MaxSessionDuration"], found["RoleId"]) == ("another", 7200, role["RoleId"])
    assert (found["AssumeRolePolicyDocument"], found["Tags"]) == ({"Statement": []}, [{"Key": "c", "Value": "d"}])
    assert [item["RoleName"] for item in iam.list_roles(PathPrefix="/team/")["Roles"]] == ["made"]
    iam.delete_role(RoleName="made")
    assert error_of(iam.get_role, RoleName="made")[::2] == ("NoSuchEntity", 404)
    assert iam.list_roles(PathPrefix="/team/")["Roles"] == []
    iam.create_role(RoleName="made", AssumeRolePolicyDocument=TRUST)
    assert iam.get_role(RoleName="made")["Role"]["RoleId"] != role["RoleId"]


def test_policies_of_a_role_are_stored(client: Client) -> None:
    iam = client("iam")
    for number in range(3):
        iam.put_role_policy(RoleName="policed", PolicyName=f"p{number}", PolicyDocument='{"Statement": ["%"]}')
    iam.attach_role_policy(RoleName="policed", PolicyArn=MANAGED)
    assert iam.get_role_policy(RoleName="policed", PolicyName="p1")["PolicyDocument"] == {"Statement": ["%"]}
    pages = iam.get_paginator("list_role_policies").paginate(RoleName="policed", PaginationConfig={"PageSize": 2})
    assert [page["PolicyNames"] for page in pages] == [["p0", "p1"], ["p2"]]
    attached = iam.list_attached_role_policies(RoleName="policed")["AttachedPolicies"]
    assert attached == [{"PolicyName": "AmazonSageMakerFullAccess", "PolicyArn": MANAGED}]
    assert iam.list_instance_profiles_for_role(RoleName="policed")["InstanceProfiles"] == []
    assert error_of(iam.delete_role, RoleName="policed")[0] == "DeleteConflict"
    for number in range(3):
        iam.delete_role_policy(RoleName="policed", PolicyName=f"p{number}")
    iam.detach_role_policy(RoleName="policed", PolicyArn=MANAGED)
    iam.delete_role(RoleName="policed")


@pytest.mark.parametrize(
    ("operation", "members", "code"),
    [
        ("get_role_policy", {"PolicyName": "absent"}, "NoSuchEntity"),
        ("delete_role_policy", {"PolicyName": "absent"}, "NoSuchEntity"),
        ("detach_role_policy", {"PolicyArn": MANAGED}, "NoSuchEntity"),
        ("put_role_policy", {"PolicyName": "p", "PolicyDocument": "no JSON"}, "MalformedPolicyDocument"),
        ("list_role_policies", {"Marker": "x"}, "ValidationError"),
    ],
)
def test_invalid_policy_request_is_refused(client: Client, operation: str, members: dict[str, str], code: str) -> None:
    assert error_of(getattr(client("iam"), operation), RoleName="some", **members)[0] == code


def test_every_action_is_simulated_as_allowed(client: Client) -> None:
    simulate = client("iam").get_paginator("simulate_principal_policy")
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


def test_repositories_list_images_of_the_engine(client: Client) -> None:
    ecr = client("ecr")
    found = {item["repositoryName"]: item for item in ecr.describe_repositories()["repositories"]}
    assert {"microjobs/serve", "tagged"} <= found.keys()
    assert found["tagged"]["repositoryUri"] == "000000000000.dkr.ecr.us-east-1.amazonaws.com/tagged"
    images = ecr.describe_images(repositoryName="microjobs/serve")["imageDetails"]
    assert [image["imageTags"] for image in images] == [["new"], ["dev", "old"]]
    listed = ecr.list_images(repositoryName="microjobs/serve", filter={"tagStatus": "TAGGED"})["imageIds"]
    assert [item["imageTag"] for item in listed] == ["new", "dev", "old"]
    one = ecr.describe_images(repositoryName="microjobs/serve", imageIds=[{"imageTag": "dev"}])["imageDetails"]
    assert [image["imageDigest"] for image in one] == ["sha256:" + "1" * 64]


def test_repository_is_stored_until_it_is_deleted(client: Client) -> None:
    ecr = client("ecr")
    made = ecr.create_repository(repositoryName="own/thing", tags=[{"Key": "a", "Value": "b"}])["repository"]
    code = error_of(ecr.create_repository, repositoryName="own/thing")[0]
    assert code == "RepositoryAlreadyExistsException"
    assert ecr.describe_repositories(repositoryNames=["own/thing"])["repositories"] == [made]
    ecr.tag_resource(resourceArn=made["repositoryArn"], tags=[{"Key": "c", "Value": "d"}])
    ecr.untag_resource(resourceArn=made["repositoryArn"], tagKeys=["a"])
    assert ecr.list_tags_for_resource(resourceArn=made["repositoryArn"])["tags"] == [{"Key": "c", "Value": "d"}]
    assert ecr.list_images(repositoryName="own/thing")["imageIds"] == []
    ecr.delete_repository(repositoryName="own/thing", force=True)
    code = error_of(ecr.describe_repositories, repositoryNames=["own/thing"])[0]
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
    client: Client, operation: str, members: dict[str, Any], code: str
) -> None:
    assert error_of(getattr(client("ecr"), operation), repositoryName="microjobs/serve", **members)[0] == code
