"""Pushes to Amazon ECR: with moto, and with a stub of ECR whose token is valid for a real registry."""

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import ANY, Stubber
from moto import mock_aws
from rich.console import Console

from microjobs_orchestrator import registry_logins
from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.push import ecr, pushed_images
from microjobs_orchestrator.push.destination import Destination
from microjobs_orchestrator.push.push import PushOptions, open_registry
from tests.push.conftest import LoadImage, Microjobs
from tests.registry import PASSWORD, LocalRegistry

if TYPE_CHECKING:
    from mypy_boto3_ecr import ECRClient

NAME = "microjobs/serve"
CONSOLE = Console(stderr=True)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> "Iterator[ECRClient]":
    """A client of the ECR that moto simulates."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        client = registry_logins.connect_to_ecr("eu-west-1", None)
        yield client
        client.close()


def test_new_repository_is_immutable_and_scanned(client: "ECRClient") -> None:
    assert ecr.create_missing_repository(client, NAME)
    (repository,) = client.describe_repositories(repositoryNames=[NAME])["repositories"]
    assert repository["imageTagMutability"] == "IMMUTABLE"
    assert repository["imageScanningConfiguration"]["scanOnPush"]


def test_new_repository_expires_old_images(client: "ECRClient") -> None:
    ecr.create_missing_repository(client, NAME)
    rules = json.loads(client.get_lifecycle_policy(repositoryName=NAME)["lifecyclePolicyText"])["rules"]
    limits = {rule["selection"]["tagStatus"]: rule["selection"]["countNumber"] for rule in rules}
    assert limits == {"untagged": 5, "tagged": 10, "any": 50}
    # https://docs.aws.amazon.com/AmazonECR/latest/userguide/lifecycle_policy_parameters.html: `any` must come last.
    assert max(rules, key=lambda rule: rule["rulePriority"])["selection"]["tagStatus"] == "any"


def test_existing_repository_is_unchanged(client: "ECRClient") -> None:
    client.create_repository(repositoryName=NAME, imageTagMutability="MUTABLE")
    assert not ecr.create_missing_repository(client, NAME)
    (repository,) = client.describe_repositories(repositoryNames=[NAME])["repositories"]
    assert repository["imageTagMutability"] == "MUTABLE"


def test_repository_without_a_policy_is_deleted(client: "ECRClient", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecr, "LIFECYCLE_POLICY", "no policy" * 20)
    with pytest.raises(ClientError, match="PutLifecyclePolicy"):
        ecr.create_missing_repository(client, NAME)
    assert client.describe_repositories()["repositories"] == []


def test_token_contains_user_and_password(client: "ECRClient") -> None:
    host, login = registry_logins.log_in_to_ecr(client)
    assert host == "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
    assert login.user == "AWS"
    assert login.password


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "eu-west-1"),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("123456789012.dkr-ecr.eu-west-1.on.aws", "eu-west-1"),
        ("public.ecr.aws", None),
        ("dkr.ecr.eu-west-1.amazonaws.com.example.com", None),
    ],
)
def test_region_is_parsed_from_the_host(host: str, region: str | None) -> None:
    assert registry_logins.parse_ecr_region(host) == region


def test_registry_of_another_account_raises() -> None:
    own_registry, other_registry = (
        f"{account}.dkr.ecr.eu-west-1.amazonaws.com" for account in ("123456789012", "210987654321")
    )
    ecr.check_account(own_registry, own_registry)
    with pytest.raises(
        UsageError, match="belongs to account 210987654321, but these credentials belong to account 123456789012"
    ):
        ecr.check_account(other_registry, own_registry)


@pytest.mark.usefixtures("client")
def test_no_repository_is_created_in_another_account() -> None:
    target = Destination("210987654321.dkr.ecr.eu-central-1.amazonaws.com")
    with pytest.raises(UsageError, match="belongs to account 210987654321"):
        open_registry(PushOptions(registry=str(target)), ["serve"], CONSOLE)
    with closing(registry_logins.connect_to_ecr("eu-central-1", None)) as client:
        assert client.describe_repositories()["repositories"] == []


@pytest.mark.usefixtures("client")
def test_repositories_are_created_below_the_prefix() -> None:
    target = Destination.parse("123456789012.dkr.ecr.eu-central-1.amazonaws.com/team")
    registry = open_registry(PushOptions(registry=str(target)), ["serve", "train"], CONSOLE)
    assert registry.destination == target
    with closing(registry_logins.connect_to_ecr("eu-central-1", None)) as client:
        names = {str(item["repositoryName"]) for item in client.describe_repositories()["repositories"]}
    assert names == {"team/serve", "team/train"}


def test_region_must_match_the_registry() -> None:
    target = Destination("123456789012.dkr.ecr.eu-west-1.amazonaws.com")
    with pytest.raises(UsageError, match="is in eu-west-1, not in us-east-1: omit --region"):
        open_registry(PushOptions(registry=str(target), region="us-east-1"), ["serve"], CONSOLE)


@pytest.mark.parametrize(("region", "profile"), [("eu-west-1", None), (None, "research")])
def test_flags_for_ecr_raise_for_other_registries(region: str | None, profile: str | None) -> None:
    options = PushOptions(registry="example.com", region=region, profile=profile)
    with pytest.raises(UsageError, match=r"are for ECR, and example\.com is not ECR"):
        open_registry(options, ["serve"], CONSOLE)


def make_stubbed_client(host: str) -> "tuple[ECRClient, Stubber]":
    """Return a client of an account whose registry is `host`, without repositories."""
    client = boto3.client("ecr", "eu-west-1", aws_access_key_id="testing", aws_secret_access_key="testing")  # noqa: S106
    stub = Stubber(client)
    token = base64.b64encode(f"AWS:{PASSWORD}".encode()).decode()
    login = {"authorizationToken": token, "proxyEndpoint": f"http://{host}"}
    stub.add_response("get_authorization_token", {"authorizationData": [login]}, {})
    name = {"repositoryName": NAME}
    stub.add_client_error(
        "describe_repositories", "RepositoryNotFoundException", expected_params={"repositoryNames": [NAME]}
    )
    settings = {"imageTagMutability": "IMMUTABLE", "imageScanningConfiguration": {"scanOnPush": True}}
    stub.add_response("create_repository", {"repository": {}}, {**name, **settings})
    stub.add_response("put_lifecycle_policy", {}, {**name, "lifecyclePolicyText": ANY})
    return client, stub


@pytest.mark.engine
def test_push_creates_the_repository_and_logs_in_with_the_token(
    microjobs: Microjobs,
    load_image: LoadImage,
    registry: LocalRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    load_image("serve")
    client, stub = make_stubbed_client(registry.host)
    (tmp_path / "config").write_text("[profile research]\naws_access_key_id = AKIA\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setattr(
        registry_logins, "connect_to_ecr", lambda region, profile: {("eu-west-1", "research"): client}[region, profile]
    )
    with stub:
        assert microjobs("push", "serve", "--region", "eu-west-1", "--profile", "research") == 0
    stub.assert_no_pending_responses()
    output = capsys.readouterr()
    assert f"created repository {registry.host}/microjobs/serve" in output.err
    pushed_image = pushed_images.load(Home.from_environment())[str(Destination(registry.host))]["serve"]
    assert output.out.strip() == pushed_image.uri
    assert registry.list_tags(NAME) == [pushed_image.tag]
