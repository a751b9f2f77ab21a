"""Tests of `microjobs doctor --on aws` with an account that moto simulates.

Stubs replace the operations that moto does not support.
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, NoCredentialsError
from botocore.stub import Stubber
from moto import mock_aws

from microjobs_orchestrator import images as project_images
from microjobs_orchestrator import workflows
from microjobs_orchestrator.aws import image_platforms, images, quotas
from microjobs_orchestrator.aws.backend import make_request_context
from microjobs_orchestrator.aws.settings import Settings
from microjobs_orchestrator.doctor import account as checks
from microjobs_orchestrator.doctor.account import SAGEMAKER, Account, Check, trusts_sagemaker
from microjobs_orchestrator.doctor.finding import Finding
from microjobs_orchestrator.local.home import Home

TRUST_POLICY = json.dumps(
    {"Statement": [{"Effect": "Allow", "Principal": {"Service": SAGEMAKER}, "Action": "sts:AssumeRole"}]}
)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Path) -> Iterator[Account]:
    """An empty account, with credentials."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield Account(boto3.Session(region_name="us-east-1"), settings, Home(tmp_path))


@pytest.fixture
def settings() -> Settings:
    return Settings(role="arn:aws:iam::123456789012:role/microjobs", bucket="data", region="us-east-1")


def run(check: Check, account: Account) -> Finding:
    (finding,) = checks.run_check("the subject", check, account)
    return finding


# --- the credentials ---


def test_credentials_of_the_same_account_as_the_role_are_ok(account: Account) -> None:
    assert checks.check_credentials(account).level == "ok"


def test_credentials_of_another_account_are_a_problem(account: Account, settings: Settings) -> None:
    other_settings = replace(settings, role="arn:aws:iam::999999999999:role/microjobs")
    finding = checks.check_credentials(replace(account, settings=other_settings))
    assert finding.level == "problem"
    assert "belong to account 123456789012, but the role belongs to account 999999999999" in finding.message


def test_missing_credentials_end_the_checks(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_no_credentials(*_: object) -> Any:
        raise NoCredentialsError

    monkeypatch.setattr(Account, "client", raise_no_credentials)
    (finding,) = checks.examine(replace(settings, profile=""), Home(tmp_path))
    assert finding.level == "problem"
    assert finding.remedy.startswith("`aws sso login`")


# --- the role ---


def test_missing_role_has_a_remedy(account: Account) -> None:
    finding = run(checks.check_role, account)
    assert (finding.level, finding.message) == ("problem", "role microjobs does not exist")
    assert "microjobs init" in finding.remedy


def test_role_that_sagemaker_may_assume_is_ok(account: Account) -> None:
    account.session.client("iam").create_role(RoleName="microjobs", AssumeRolePolicyDocument=TRUST_POLICY)
    assert run(checks.check_role, account).level == "ok"


def test_role_that_trusts_another_service_is_a_problem(account: Account) -> None:
    trust = TRUST_POLICY.replace("sagemaker", "lambda")
    account.session.client("iam").create_role(RoleName="microjobs", AssumeRolePolicyDocument=trust)
    assert "does not trust sagemaker.amazonaws.com" in run(checks.check_role, account).message


def test_role_under_another_path_is_a_problem(account: Account) -> None:
    account.session.client("iam").create_role(
        RoleName="microjobs", Path="/team/", AssumeRolePolicyDocument=TRUST_POLICY
    )
    assert "arn:aws:iam::123456789012:role/team/microjobs" in run(checks.check_role, account).message


@pytest.mark.parametrize(
    ("statement", "trusted"),
    [
        ({"Effect": "Allow", "Principal": {"Service": [SAGEMAKER]}, "Action": ["sts:AssumeRole"]}, True),
        ({"Effect": "Deny", "Principal": {"Service": SAGEMAKER}, "Action": "sts:AssumeRole"}, False),
        ({"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}, False),
        ({"Effect": "Allow", "Principal": {"Service": SAGEMAKER}, "Action": "sts:TagSession"}, False),
    ],
)
def test_trust_policies_are_parsed_in_all_forms(statement: dict[str, Any], trusted: bool) -> None:
    assert trusts_sagemaker({"Statement": statement}) == trusted
    assert trusts_sagemaker({"Statement": [statement]}) == trusted


def simulate_policy(monkeypatch: pytest.MonkeyPatch, denied: str) -> list[dict[str, Any]]:
    """Let IAM's simulation deny one action, and return the list of its requests."""
    requests: list[dict[str, Any]] = []

    class Iam:
        def simulate_principal_policy(self, **request: Any) -> dict[str, Any]:
            requests.append(request)
            decisions = {action: "implicitDeny" if action == denied else "allowed" for action in request["ActionNames"]}
            return {
                "EvaluationResults": [
                    {"EvalActionName": action, "EvalDecision": decision} for action, decision in decisions.items()
                ]
            }

    monkeypatch.setattr(Account, "client", lambda *_: Iam())
    return requests


def test_denied_permissions_are_listed(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate_policy(monkeypatch, "s3:PutObject")
    finding = run(checks.check_permissions, account)
    assert finding.message.endswith("may not: s3:PutObject on arn:aws:s3:::data/microjobs/run/object")


def test_simulation_requests_are_valid(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = simulate_policy(monkeypatch, "")
    assert run(checks.check_permissions, account).level == "ok"
    monkeypatch.undo()
    iam = account.session.client("iam", aws_access_key_id="k", aws_secret_access_key="s")  # noqa: S106
    model = iam.meta.service_model.operation_model("SimulatePrincipalPolicy")
    for request in requests:
        iam._serializer.serialize_to_request(request, model)  # type: ignore[attr-defined]


# --- the bucket ---


def test_bucket_in_the_region_of_jobs_is_ok(account: Account) -> None:
    account.session.client("s3").create_bucket(Bucket="data")
    assert run(checks.check_bucket, account).level == "ok"


def test_missing_bucket_has_a_remedy(account: Account) -> None:
    assert run(checks.check_bucket, account).message == "bucket data does not exist"


def test_bucket_in_another_region_is_a_problem(account: Account) -> None:
    account.session.client("s3").create_bucket(
        Bucket="data", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    finding = run(checks.check_bucket, account)
    assert "bucket data is in eu-central-1, but SageMaker requires it in us-east-1" in finding.message


# --- quotas ---


def make_quota(name: str, value: float) -> dict[str, Any]:
    return {"QuotaName": name, "Value": value}


def test_quotas_are_compared_with_concurrent_instances(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"ml.m5.large for processing job usage": 4.0, "ml.m5.large for training job usage": 2.0}
    monkeypatch.setattr(quotas, "read_quotas", lambda _client: limits)
    findings = {item.message: item.level for item in checks.check_quotas(account)}
    assert findings == {
        "quota 'ml.m5.large for processing job usage' is 4": "ok",
        "quota 'ml.m5.large for training job usage' is 2, but the workflows need 3": "problem",
        "AWS has no quota 'ml.m5.large for endpoint usage'": "unknown",
    }


def test_quotas_are_separate_for_spot_and_for_each_instance_type(full_settings: Settings) -> None:
    requests = workflows.plan_requests(make_request_context(full_settings, find_image_uri=str), {})
    assert quotas.compute_needed_quotas(requests, spot=True) == {
        "ml.m5.large for processing job usage": 4,
        "ml.g5.xlarge for spot training job usage": 1,
        "ml.m5.large for spot training job usage": 3,
        "ml.c5.large for endpoint usage": 2,
    }


def test_all_pages_of_quotas_are_read() -> None:
    client = boto3.client("service-quotas", "us-east-1", aws_access_key_id="k", aws_secret_access_key="s")  # noqa: S106
    with Stubber(client) as stub:
        stub.add_response("list_service_quotas", {"Quotas": [make_quota("a", 1.0)], "NextToken": "more"})
        stub.add_response("list_service_quotas", {"Quotas": [make_quota("b", 2.0)]})
        assert quotas.read_quotas(client) == {"a": 1.0, "b": 2.0}


# --- images ---


def test_unpushed_image_has_a_remedy(account: Account) -> None:
    findings = list(checks.check_images(account))
    assert {item.level for item in findings} == {"problem"}
    assert "microjobs push serve" in [item.remedy for item in findings]


def test_image_deleted_from_ecr_is_a_problem(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"{account.settings.destination.make_repository_uri('serve')}@sha256:{'0' * 64}"
    monkeypatch.setattr(project_images, "list_jobs", lambda: ["serve"])
    monkeypatch.setattr(images, "load_pushed_images", lambda *_: {"serve": uri})
    assert run(checks.check_images, account).message == f"{uri} is no longer in ECR"


@pytest.mark.parametrize(
    ("platforms", "level"),
    [(["linux/amd64"], "ok"), (["linux/arm64"], "problem"), (["linux/arm64", "linux/amd64"], "ok")],
)
def test_image_needs_the_platform_of_sagemaker(
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    platforms: list[str],
    level: str,
) -> None:
    monkeypatch.setattr(project_images, "list_jobs", lambda: ["serve"])
    monkeypatch.setattr(images, "load_pushed_images", lambda *_: {"serve": "host/microjobs/serve@sha256:1"})
    monkeypatch.setattr(image_platforms, "list_platforms", lambda *_: platforms)
    assert run(checks.check_images, account).level == level


@pytest.fixture
def config_url() -> Iterator[str]:
    """The URL of an image's config on a web server, in place of ECR's storage."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"os": "linux", "architecture": "arm64"}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/config"
        server.shutdown()
        thread.join()


def find_platforms(manifest: dict[str, Any], url: str = "") -> list[str]:
    client = boto3.client("ecr", "us-east-1", aws_access_key_id="k", aws_secret_access_key="s")  # noqa: S106
    with Stubber(client) as stub:
        stub.add_response("batch_get_image", {"images": [{"imageManifest": json.dumps(manifest)}]})
        if url:
            expected = {"repositoryName": "microjobs/serve", "layerDigest": "sha256:c"}
            stub.add_response("get_download_url_for_layer", {"downloadUrl": url}, expected)
        return image_platforms.list_platforms(client, "microjobs/serve", "sha256:m")


def test_architecture_of_a_single_image_is_in_its_config(config_url: str) -> None:
    assert find_platforms({"config": {"digest": "sha256:c"}}, config_url) == ["linux/arm64"]


def test_architectures_of_an_index_are_in_its_manifest() -> None:
    platform = {"os": "linux", "architecture": "amd64"}
    attestation = {"os": "unknown", "architecture": "unknown"}
    manifest = {"manifests": [{"platform": platform}, {"platform": attestation}]}
    assert find_platforms(manifest) == ["linux/amd64"]


# --- checks that fail ---


def make_failing_check(error: Exception) -> Check:
    def check(_account: Account) -> Iterator[Finding]:
        raise error

    return check


@pytest.mark.parametrize("code", ["AccessDenied", "AccessDeniedException", "UnauthorizedOperation"])
def test_check_without_permission_has_level_unknown(code: str, account: Account) -> None:
    finding = run(make_failing_check(ClientError({"Error": {"Code": code, "Message": "no"}}, "GetRole")), account)
    assert (finding.level, finding.message) == ("unknown", "the subject cannot be checked: GetRole is not allowed")


@pytest.mark.parametrize(
    "error", [OSError("no route"), ClientError({"Error": {"Code": "Throttling", "Message": "no route"}}, "GetRole")]
)
def test_failed_check_has_level_unknown(error: Exception, account: Account) -> None:
    finding = run(make_failing_check(error), account)
    assert (finding.level, finding.message) == ("unknown", f"the subject cannot be checked: {error}")
    assert finding.remedy == "try again"
