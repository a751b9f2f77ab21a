"""Checks of an AWS account."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from microjobs_orchestrator import images, workflows
from microjobs_orchestrator.aws import image_platforms, quotas
from microjobs_orchestrator.aws import images as aws_images
from microjobs_orchestrator.aws.backend import (
    CLIENT_CONFIG,
    find_credentials_problems,
    make_request_context,
    open_session,
)
from microjobs_orchestrator.aws.remedies import DENIED_CODES, find_remedy, format_login_commands
from microjobs_orchestrator.aws.settings import Settings, find_problems
from microjobs_orchestrator.doctor.finding import Finding
from microjobs_orchestrator.local.home import Home

if TYPE_CHECKING:
    from mypy_boto3_iam.type_defs import ContextEntryTypeDef

CHECK_CONFIG = CLIENT_CONFIG.merge(Config(retries={"mode": "standard", "max_attempts": 2}))
"""Settings with few retries: a check should soon report a service that does not answer."""
DEPLOY_TEMPLATE = "deploy the template that `microjobs init` writes"
SAGEMAKER = "sagemaker.amazonaws.com"


@dataclass(frozen=True)
class Account:
    session: boto3.Session
    settings: Settings
    home: Home

    def client(self, service: str) -> Any:
        return self.session.client(service, config=CHECK_CONFIG)  # type: ignore[call-overload]  # any service


Check = Callable[[Account], Iterator[Finding]]


def examine(settings: Settings, home: Home) -> Iterator[Finding]:
    """Run the checks and yield each finding as soon as it is known.

    Problems with the settings or the credentials are findings, too. After such a finding, the role, the bucket, the
    quotas and the images are not checked.
    """
    settings_problems = find_problems(settings, workflows.list_steps())
    login_problems = find_credentials_problems(settings)
    for problem in (*settings_problems, *login_problems):
        yield Finding("problem", problem.message, problem.remedy)
    if login_problems or not settings.region:
        return
    account = Account(open_session(settings), settings, home)
    credentials_finding = check_credentials(account)
    yield credentials_finding
    if credentials_finding.level == "ok" and not settings_problems:
        for subject, check in CHECKS.items():
            yield from run_check(subject, check, account)


def run_check(subject: str, check: Check, account: Account) -> Iterator[Finding]:
    """Yield a check's findings; if AWS does not allow or answer its requests, yield a finding that reports this."""
    try:
        yield from check(account)
    except ClientError as error:
        if error.response["Error"]["Code"] in DENIED_CODES:
            message = f"{subject} cannot be checked: {error.operation_name} is not allowed"
            yield Finding(
                "unknown",
                message,
                "ask an administrator of the account for this permission, or continue without the check",
            )
        else:
            yield Finding("unknown", f"{subject} cannot be checked: {error}", "try again")
    except (BotoCoreError, ResponseParserError, OSError) as error:  # a network gateway may answer instead of AWS
        yield Finding("unknown", f"{subject} cannot be checked: {error}", "try again")


def check_credentials(account: Account) -> Finding:
    """Check that AWS accepts the credentials, and that they belong to the role's account."""
    settings = account.settings
    try:
        identity = account.client("sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        remedy = find_remedy(error, settings.profile) or format_login_commands(settings.profile)
        return Finding("problem", f"AWS does not accept these credentials: {error}", remedy)
    if settings.account and identity["Account"] != settings.account:
        message = (
            f"the credentials belong to account {identity['Account']}, "
            f"but the role belongs to account {settings.account}"
        )
        return Finding("problem", message, "choose another --profile, or another role")
    return Finding("ok", f"credentials of {identity['Arn']}")


def check_role(account: Account) -> Iterator[Finding]:
    """Check that the role exists, and that SageMaker may assume it."""
    settings, iam = account.settings, account.client("iam")
    try:
        role = iam.get_role(RoleName=settings.role_name)["Role"]
    except iam.exceptions.NoSuchEntityException:
        yield Finding("problem", f"role {settings.role_name} does not exist", DEPLOY_TEMPLATE)
        return
    if role["Arn"] != settings.role:
        message = f"the role's ARN is {role['Arn']}, not {settings.role}"
        yield Finding("problem", message, "write the ARN into microjobs.toml")
    elif trusts_sagemaker(role["AssumeRolePolicyDocument"]):
        yield Finding("ok", f"role {settings.role_name}, which SageMaker may assume")
    else:
        message = f"role {settings.role_name} does not trust {SAGEMAKER}"
        yield Finding("problem", message, f"allow it sts:AssumeRole, or {DEPLOY_TEMPLATE}")


def trusts_sagemaker(policy: Any) -> bool:
    """Return whether a trust policy lets SageMaker assume a role."""
    return any(_allows_sagemaker(statement) for statement in _as_list(policy.get("Statement", [])))


def _allows_sagemaker(statement: dict[str, Any]) -> bool:
    principal = statement.get("Principal", {})
    services = principal.get("Service", []) if isinstance(principal, dict) else []
    return (
        statement.get("Effect") == "Allow"
        and SAGEMAKER in _as_list(services)
        and "sts:AssumeRole" in _as_list(statement.get("Action", []))
    )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def check_permissions(account: Account) -> Iterator[Finding]:
    """Check the role's permissions with IAM's policy simulator."""
    denied = [
        f"{action} on {resource}"
        for actions, resource in list_needed_permissions(account.settings)
        for action in _list_denied_actions(account, actions, resource)
    ]
    role = account.settings.role_name
    if denied:
        yield Finding("problem", f"role {role} may not: {', '.join(denied)}", DEPLOY_TEMPLATE)
    else:
        yield Finding("ok", f"role {role} has the permissions that jobs need")


def list_needed_permissions(settings: Settings) -> Iterator[tuple[list[str], str]]:
    """Yield the actions of jobs with the ARN of the resource that they act on."""
    partition = settings.role.split(":")[1]
    bucket = f"arn:{partition}:s3:::{settings.bucket}"
    logs = f"arn:{partition}:logs:{settings.region}:{settings.account}:log-group:/aws/sagemaker/TrainingJobs"
    yield ["s3:GetObject", "s3:PutObject"], f"{bucket}/{settings.key_prefix}run/object"
    yield ["s3:ListBucket"], bucket
    yield ["logs:CreateLogStream", "logs:PutLogEvents"], f"{logs}:log-stream:job"
    yield ["ecr:GetAuthorizationToken"], "*"
    registry = f"arn:{partition}:ecr:{settings.region}:{settings.account}:repository"
    for job in images.list_jobs():
        yield (
            ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
            f"{registry}/{settings.destination.make_repository_name(job)}",
        )


def _list_denied_actions(account: Account, actions: list[str], resource: str) -> list[str]:
    settings = account.settings
    context: ContextEntryTypeDef = {
        "ContextKeyName": "s3:prefix",
        "ContextKeyValues": [f"{settings.key_prefix}run"],
        "ContextKeyType": "string",
    }
    response = account.client("iam").simulate_principal_policy(
        PolicySourceArn=settings.role, ActionNames=actions, ResourceArns=[resource], ContextEntries=[context]
    )
    results = response["EvaluationResults"]
    return [result["EvalActionName"] for result in results if result["EvalDecision"] != "allowed"]


def check_bucket(account: Account) -> Iterator[Finding]:
    """Check that the bucket can be used, and that it is in the region of the jobs."""
    bucket, region = account.settings.bucket, account.settings.region
    try:
        response = account.client("s3").head_bucket(Bucket=bucket)
    except ClientError as error:
        metadata = error.response["ResponseMetadata"]
        if metadata["HTTPStatusCode"] == 404:
            yield Finding("problem", f"bucket {bucket} does not exist", DEPLOY_TEMPLATE)
            return
        if metadata["HTTPStatusCode"] != 301:
            message = f"these credentials may not use bucket {bucket}"
            yield Finding("problem", message, "allow s3:ListBucket on it, or choose another bucket")
            return
        bucket_region = metadata.get("HTTPHeaders", {}).get("x-amz-bucket-region", "another region")
    else:
        bucket_region = response.get("BucketRegion", region)
    if bucket_region == region:
        yield Finding("ok", f"bucket {bucket} in {region}")
    else:
        message = f"bucket {bucket} is in {bucket_region}, but SageMaker requires it in {region}, the jobs' region"
        yield Finding("problem", message, f"--region {bucket_region}, or a bucket in {region}")


def check_quotas(account: Account) -> Iterator[Finding]:
    """Check that the account may use as many instances as the workflows need."""
    limits, settings = quotas.read_quotas(account.client("service-quotas")), account.settings
    # The names of the jobs stand for the URIs of their images, because these requests are only counted.
    requests = workflows.plan_requests(make_request_context(settings, find_image_uri=str), settings.workflow_options)
    for quota, needed_count in quotas.compute_needed_quotas(requests, spot=settings.spot).items():
        limit = limits.get(quota)
        if limit is None:
            yield Finding("unknown", f"AWS has no quota {quota!r}", "check the name of the instance type")
        elif limit >= needed_count:
            yield Finding("ok", f"quota {quota!r} is {limit:g}")
        else:
            message = f"quota {quota!r} is {limit:g}, but the workflows need {needed_count}"
            remedy = "request an increase in the console of Service Quotas, or choose another --instance-type"
            yield Finding("problem", message, remedy)


def check_images(account: Account) -> Iterator[Finding]:
    """Check that ECR has the pushed images, with the digests that requests name, for SageMaker's platform."""
    destination = account.settings.destination
    pushed = aws_images.load_pushed_images(account.home, destination)
    for job in images.list_jobs():
        if job not in pushed:
            yield Finding(
                "problem", f"the image of {job} was not pushed from {account.home.root}", f"microjobs push {job}"
            )
            continue
        digest = pushed[job].rpartition("@")[2]
        platforms = image_platforms.list_platforms(account.client("ecr"), destination.make_repository_name(job), digest)
        if not platforms:
            yield Finding("problem", f"{pushed[job]} is no longer in ECR", f"microjobs push {job}")
        elif images.PLATFORM not in platforms:
            message = f"{job} is for {', '.join(platforms)}, not {images.PLATFORM}"
            yield Finding("problem", message, f"`microjobs build {job}`, then `microjobs push {job}`")
        else:
            yield Finding("ok", f"{job} is in ECR, for {images.PLATFORM}")


CHECKS: dict[str, Check] = {
    "the role": check_role,
    "the role's permissions": check_permissions,
    "the bucket": check_bucket,
    "quotas": check_quotas,
    "images": check_images,
}
"""Checks by subject. They need complete settings and valid credentials."""
