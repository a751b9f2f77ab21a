"""`doctor --on aws` on an account made from our own template, by moto; what moto has not, botocore's stubs answer."""

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

from microjobs_orchestrator.aws import architecture, checks, images, quotas
from microjobs_orchestrator.aws.settings import Settings
from microjobs_orchestrator.doctor import Finding
from microjobs_orchestrator.local.home import Home

SERVES = json.dumps(
    {"Statement": [{"Effect": "Allow", "Principal": {"Service": checks.SAGEMAKER}, "Action": "sts:AssumeRole"}]}
)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[boto3.Session]:
    """An account with credentials and nothing in it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield boto3.Session(region_name="us-east-1")


@pytest.fixture
def settings() -> Settings:
    return Settings(role="arn:aws:iam::123456789012:role/microjobs", bucket="data", region="us-east-1")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def found(check: checks.Check, account: boto3.Session, settings: Settings, home: Home) -> Finding:
    (finding,) = checks.guarded("it", check, account, settings, home)
    return finding


# --- who ---


def test_credentials_of_the_roles_account_are_well(account: boto3.Session, settings: Settings) -> None:
    assert checks.credentials(account, settings).level == "well"


def test_credentials_of_another_account_are_to_be_mended(account: boto3.Session, settings: Settings) -> None:
    other = replace(settings, role="arn:aws:iam::999999999999:role/microjobs")
    finding = checks.credentials(account, other)
    assert finding.level == "mend"
    assert "of account 123456789012, the role is of 999999999999" in finding.message


def test_no_credentials_end_the_checks(settings: Settings, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> Any:
        raise NoCredentialsError

    monkeypatch.setattr(checks, "client", none)
    (finding,) = checks.examine(replace(settings, profile=""), home)
    assert finding.level == "mend"
    assert finding.remedy.startswith("`aws sso login`")


# --- the role ---


def test_role_that_is_not_there_has_a_remedy(account: boto3.Session, settings: Settings, home: Home) -> None:
    finding = found(checks.role, account, settings, home)
    assert (finding.level, finding.message) == ("mend", "there is no role microjobs")
    assert "microjobs init" in finding.remedy


def test_role_that_sagemaker_may_take_on_is_well(account: boto3.Session, settings: Settings, home: Home) -> None:
    account.client("iam").create_role(RoleName="microjobs", AssumeRolePolicyDocument=SERVES)
    assert found(checks.role, account, settings, home).level == "well"


def test_role_that_trusts_another_service_is_to_be_mended(
    account: boto3.Session, settings: Settings, home: Home
) -> None:
    trust = SERVES.replace("sagemaker", "lambda")
    account.client("iam").create_role(RoleName="microjobs", AssumeRolePolicyDocument=trust)
    assert "does not trust sagemaker.amazonaws.com" in found(checks.role, account, settings, home).message


def test_role_under_another_path_is_told_apart(account: boto3.Session, settings: Settings, home: Home) -> None:
    account.client("iam").create_role(RoleName="microjobs", Path="/team/", AssumeRolePolicyDocument=SERVES)
    assert "arn:aws:iam::123456789012:role/team/microjobs" in found(checks.role, account, settings, home).message


@pytest.mark.parametrize(
    ("statement", "trusted"),
    [
        ({"Effect": "Allow", "Principal": {"Service": [checks.SAGEMAKER]}, "Action": ["sts:AssumeRole"]}, True),
        ({"Effect": "Deny", "Principal": {"Service": checks.SAGEMAKER}, "Action": "sts:AssumeRole"}, False),
        ({"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}, False),
        ({"Effect": "Allow", "Principal": {"Service": checks.SAGEMAKER}, "Action": "sts:TagSession"}, False),
    ],
)
def test_trust_policies_are_read_in_all_forms(statement: dict[str, Any], trusted: bool) -> None:
    assert checks.trusts_sagemaker({"Statement": statement}) == trusted
    assert checks.trusts_sagemaker({"Statement": [statement]}) == trusted


def simulated(monkeypatch: pytest.MonkeyPatch, denied: str) -> list[dict[str, Any]]:
    """IAM's simulation denies one action; the requests that it got."""
    asked: list[dict[str, Any]] = []

    class Iam:
        def simulate_principal_policy(self, **request: Any) -> dict[str, Any]:
            asked.append(request)
            decisions = {action: "implicitDeny" if action == denied else "allowed" for action in request["ActionNames"]}
            return {
                "EvaluationResults": [
                    {"EvalActionName": action, "EvalDecision": decision} for action, decision in decisions.items()
                ]
            }

    monkeypatch.setattr(checks, "client", lambda *_: Iam())
    return asked


def test_permissions_that_jobs_lack_are_named(
    account: boto3.Session, settings: Settings, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated(monkeypatch, "s3:PutObject")
    finding = found(checks.permissions, account, settings, home)
    assert finding.message.endswith("may not: s3:PutObject on arn:aws:s3:::data/microjobs/run/object")


def test_simulation_requests_are_valid(
    account: boto3.Session, settings: Settings, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = simulated(monkeypatch, "")
    assert found(checks.permissions, account, settings, home).level == "well"
    monkeypatch.undo()
    iam = account.client("iam", aws_access_key_id="k", aws_secret_access_key="s")  # noqa: S106
    model = iam.meta.service_model.operation_model("SimulatePrincipalPolicy")
    for request in asked:
        iam._serializer.serialize_to_request(request, model)  # type: ignore[attr-defined]


# --- the bucket ---


def test_bucket_in_the_region_of_jobs_is_well(account: boto3.Session, settings: Settings, home: Home) -> None:
    account.client("s3").create_bucket(Bucket="data")
    assert found(checks.bucket, account, settings, home).level == "well"


def test_bucket_that_is_not_there_has_a_remedy(account: boto3.Session, settings: Settings, home: Home) -> None:
    assert found(checks.bucket, account, settings, home).message == "there is no bucket data"


def test_bucket_in_another_region_is_to_be_mended(account: boto3.Session, settings: Settings, home: Home) -> None:
    account.client("s3").create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    finding = found(checks.bucket, account, settings, home)
    assert "bucket data is in eu-central-1, jobs run in us-east-1" in finding.message


# --- quotas ---


def quota(name: str, value: float) -> dict[str, Any]:
    return {"QuotaName": name, "Value": value}


def test_quotas_are_compared_with_what_runs_at_once(
    account: boto3.Session, settings: Settings, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"ml.m5.large for processing job usage": 4.0, "ml.m5.large for training job usage": 2.0}
    monkeypatch.setattr(quotas, "read", lambda _client: known)
    findings = {item.message: item.level for item in checks.instances(account, settings, home)}
    assert findings == {
        "quota 'ml.m5.large for processing job usage' is 4": "well",
        "quota 'ml.m5.large for training job usage' is 2, 3 are needed": "mend",
        "no quota is called 'ml.m5.large for endpoint usage'": "unknown",
    }


def test_spot_and_other_types_have_quotas_of_their_own(full: Settings) -> None:
    assert {need.name: need.instances for need in quotas.needs(full)} == {
        "ml.m5.large for processing job usage": 4,
        "ml.g5.xlarge for spot training job usage": 1,
        "ml.m5.large for spot training job usage": 3,
        "ml.c5.large for endpoint usage": 2,
    }


def test_all_pages_of_quotas_are_read() -> None:
    client = boto3.client("service-quotas", "us-east-1", aws_access_key_id="k", aws_secret_access_key="s")  # noqa: S106
    with Stubber(client) as stub:
        stub.add_response("list_service_quotas", {"Quotas": [quota("a", 1.0)], "NextToken": "more"})
        stub.add_response("list_service_quotas", {"Quotas": [quota("b", 2.0)]})
        assert quotas.read(client) == {"a": 1.0, "b": 2.0}


# --- images ---


def test_image_that_was_not_pushed_has_its_command(account: boto3.Session, settings: Settings, home: Home) -> None:
    findings = list(checks.pushed_images(account, settings, home))
    assert {item.level for item in findings} == {"mend"}
    assert "microjobs push serve" in [item.remedy for item in findings]


def test_image_that_is_gone_from_ecr_is_to_be_mended(
    account: boto3.Session, settings: Settings, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{settings.destination.repository('serve')}@sha256:{'0' * 64}"
    monkeypatch.setattr(checks, "jobs", lambda: ["serve"])
    monkeypatch.setattr(images, "pushed", lambda *_: {"serve": uri})
    assert found(checks.pushed_images, account, settings, home).message == f"{uri} is not in ECR any more"


@pytest.mark.parametrize(
    ("platforms", "level"),
    [(["linux/amd64"], "well"), (["linux/arm64"], "mend"), (["linux/arm64", "linux/amd64"], "well")],
)
def test_image_must_be_for_sagemakers_machines(
    account: boto3.Session,
    settings: Settings,
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    platforms: list[str],
    level: str,
) -> None:
    monkeypatch.setattr(checks, "jobs", lambda: ["serve"])
    monkeypatch.setattr(images, "pushed", lambda *_: {"serve": "host/microjobs/serve@sha256:1"})
    monkeypatch.setattr(architecture, "platforms", lambda *_: platforms)
    assert found(checks.pushed_images, account, settings, home).level == level


@pytest.fixture
def blobs() -> Iterator[str]:
    """Where ECR keeps an image's config: a web server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"os": "linux", "architecture": "arm64"}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/config"
        server.shutdown()
        thread.join()


def platforms_of(manifest: dict[str, Any], url: str = "") -> list[str]:
    client = boto3.client("ecr", "us-east-1", aws_access_key_id="k", aws_secret_access_key="s")  # noqa: S106
    with Stubber(client) as stub:
        stub.add_response("batch_get_image", {"images": [{"imageManifest": json.dumps(manifest)}]})
        if url:
            expected = {"repositoryName": "microjobs/serve", "layerDigest": "sha256:c"}
            stub.add_response("get_download_url_for_layer", {"downloadUrl": url}, expected)
        return architecture.platforms(client, "microjobs/serve", "sha256:m")


def test_architecture_of_a_single_image_is_in_its_config(blobs: str) -> None:
    assert platforms_of({"config": {"digest": "sha256:c"}}, blobs) == ["linux/arm64"]


def test_architectures_of_an_index_are_in_itself() -> None:
    built = {"os": "linux", "architecture": "amd64"}
    attestation = {"os": "unknown", "architecture": "unknown"}
    manifest = {"manifests": [{"platform": built}, {"platform": attestation}]}
    assert platforms_of(manifest) == ["linux/amd64"]


# --- what may not be looked at ---


@pytest.mark.parametrize("code", ["AccessDenied", "AccessDeniedException", "UnauthorizedOperation"])
def test_check_that_is_not_allowed_is_a_finding(
    account: boto3.Session, settings: Settings, home: Home, code: str
) -> None:
    def denied(*_: object) -> Iterator[Finding]:
        raise ClientError({"Error": {"Code": code, "Message": "no"}}, "GetRole")

    finding = found(denied, account, settings, home)
    assert (finding.level, finding.message) == ("unknown", "it cannot be looked at: GetRole is not allowed")


def test_check_that_breaks_is_a_finding(account: boto3.Session, settings: Settings, home: Home) -> None:
    def broken(*_: object) -> Iterator[Finding]:
        raise OSError("no route")

    finding = found(broken, account, settings, home)
    assert (finding.level, finding.message) == ("unknown", "it cannot be looked at: no route")
