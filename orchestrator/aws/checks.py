"""`microjobs doctor --on aws`: whether an account has what runs need, each finding with what mends it."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from microjobs_orchestrator.aws import architecture, images, quotas
from microjobs_orchestrator.aws.place import CLIENT, credentials_problems, session
from microjobs_orchestrator.aws.remedies import DENIED, login, remedy
from microjobs_orchestrator.aws.settings import Settings, problems
from microjobs_orchestrator.doctor import Finding
from microjobs_orchestrator.images import jobs
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.push.plan import PLATFORM

if TYPE_CHECKING:
    from mypy_boto3_ecr import ECRClient
    from mypy_boto3_iam import IAMClient

SAGEMAKER = "sagemaker.amazonaws.com"
QUICK = CLIENT.merge(Config(retries={"mode": "standard", "max_attempts": 2}))
"""A doctor rather says that nobody answers than asks ten times."""
TEMPLATE = "deploy the template that `microjobs init` writes"

Check = Callable[[boto3.Session, Settings, Home], Iterator[Finding]]


def examine(settings: Settings, home: Home) -> Iterator[Finding]:
    """All findings, as they are made. Without settings and credentials there are only those that say so."""
    missing = problems(settings)
    unknown = credentials_problems(settings)
    yield from (Finding("mend", problem.message, problem.remedy) for problem in (*missing, *unknown))
    if unknown or not settings.region:
        return
    opened = session(settings)
    who = credentials(opened, settings)
    yield who
    if who.level == "well" and not missing:
        for what, check in CHECKS.items():
            yield from guarded(what, check, opened, settings, home)


def guarded(what: str, check: Check, opened: boto3.Session, settings: Settings, home: Home) -> Iterator[Finding]:
    """A check's findings; one that may not be made is a finding itself."""
    try:
        yield from check(opened, settings, home)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in DENIED:
            yield Finding(
                "unknown", f"{what} cannot be looked at: {error.operation_name} is not allowed", "ask who may, or go on"
            )
        else:
            yield Finding("unknown", f"{what} cannot be looked at: {error}", "try again")
    except (BotoCoreError, ResponseParserError, OSError) as error:  # a gateway may answer for AWS, with a page
        yield Finding("unknown", f"{what} cannot be looked at: {error}", "try again")


def client(opened: boto3.Session, service: str) -> Any:
    return opened.client(service, config=QUICK)  # type: ignore[call-overload]  # any service


# --- who ---


def credentials(opened: boto3.Session, settings: Settings) -> Finding:
    """Whether there are credentials that AWS takes, and whether they are of the role's account."""
    try:
        who = client(opened, "sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        todo = remedy(error, settings.profile) or login(settings.profile)
        return Finding("mend", f"AWS does not take these credentials: {error}", todo)
    if settings.account and who["Account"] != settings.account:
        return Finding(
            "mend",
            f"the credentials are of account {who['Account']}, the role is of {settings.account}",
            "choose another --profile, or another role",
        )
    return Finding("well", f"credentials of {who['Arn']}")


# --- the role ---


def role(opened: boto3.Session, settings: Settings, _home: Home) -> Iterator[Finding]:
    """Whether the role is there, and SageMaker may take it on."""
    iam: IAMClient = client(opened, "iam")
    try:
        found: Any = iam.get_role(RoleName=settings.role_name)["Role"]
    except iam.exceptions.NoSuchEntityException:
        yield Finding("mend", f"there is no role {settings.role_name}", TEMPLATE)
        return
    if found["Arn"] != settings.role:
        yield Finding("mend", f"the role's ARN is {found['Arn']}, not {settings.role}", "put that into microjobs.toml")
    elif trusts_sagemaker(found["AssumeRolePolicyDocument"]):
        yield Finding("well", f"role {settings.role_name}, which SageMaker may take on")
    else:
        yield Finding(
            "mend", f"role {settings.role_name} does not trust {SAGEMAKER}", f"allow it sts:AssumeRole, or {TEMPLATE}"
        )


def trusts_sagemaker(document: Any) -> bool:
    """Whether a trust policy lets SageMaker take a role on."""
    statements = document.get("Statement", [])
    for statement in statements if isinstance(statements, list) else [statements]:
        principal = statement.get("Principal", {})
        services = principal.get("Service", []) if isinstance(principal, dict) else []
        if (
            statement.get("Effect") == "Allow"
            and SAGEMAKER in _listed(services)
            and "sts:AssumeRole" in _listed(statement.get("Action", []))
        ):
            return True
    return False


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def permissions(opened: boto3.Session, settings: Settings, _home: Home) -> Iterator[Finding]:
    """What the role may not do and jobs do, by IAM's own simulation."""
    iam: IAMClient = client(opened, "iam")
    denied = [
        f"{result['EvalActionName']} on {resource}"
        for actions, resource in needed(settings)
        for result in iam.simulate_principal_policy(
            PolicySourceArn=settings.role,
            ActionNames=actions,
            ResourceArns=[resource],
            ContextEntries=[
                {
                    "ContextKeyName": "s3:prefix",
                    "ContextKeyValues": [f"{settings.key_prefix}run"],
                    "ContextKeyType": "string",
                }
            ],
        )["EvaluationResults"]
        if result["EvalDecision"] != "allowed"
    ]
    if denied:
        yield Finding("mend", f"role {settings.role_name} may not: {', '.join(denied)}", TEMPLATE)
    else:
        yield Finding("well", f"role {settings.role_name} may do what jobs do")


def needed(settings: Settings) -> Iterator[tuple[list[str], str]]:
    """Actions of jobs, and on what."""
    partition = settings.role.split(":")[1]
    bucket = f"arn:{partition}:s3:::{settings.bucket}"
    logs = f"arn:{partition}:logs:{settings.region}:{settings.account}:log-group:/aws/sagemaker/TrainingJobs"
    yield ["s3:GetObject", "s3:PutObject"], f"{bucket}/{settings.key_prefix}run/object"
    yield ["s3:ListBucket"], bucket
    yield ["logs:CreateLogStream", "logs:PutLogEvents"], f"{logs}:log-stream:job"
    yield ["ecr:GetAuthorizationToken"], "*"
    registry = f"arn:{partition}:ecr:{settings.region}:{settings.account}:repository"
    for job in jobs():
        yield ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"], f"{registry}/{settings.destination.name(job)}"


# --- the bucket ---


def bucket(opened: boto3.Session, settings: Settings, _home: Home) -> Iterator[Finding]:
    """Whether the bucket can be reached, and lies in the region of the jobs."""
    name = settings.bucket
    try:
        answer = client(opened, "s3").head_bucket(Bucket=name)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        headers = error.response["ResponseMetadata"].get("HTTPHeaders", {})
        if status == 404:
            yield Finding("mend", f"there is no bucket {name}", TEMPLATE)
        elif status == 301:
            yield _elsewhere(name, headers.get("x-amz-bucket-region", "another region"), settings.region)
        else:
            yield Finding("mend", f"bucket {name} may not be used by you", "allow s3:ListBucket on it, or take another")
        return
    region = answer.get("BucketRegion", settings.region)
    if region == settings.region:
        yield Finding("well", f"bucket {name} in {region}")
    else:
        yield _elsewhere(name, region, settings.region)


def _elsewhere(name: str, region: str, wanted: str) -> Finding:
    remedy = f"--region {region}, or a bucket in {wanted}"
    return Finding("mend", f"bucket {name} is in {region}, jobs run in {wanted}: SageMaker refuses that", remedy)


# --- instances and images ---


def instances(opened: boto3.Session, settings: Settings, _home: Home) -> Iterator[Finding]:
    """Whether the account may use as many instances as the housing workflow takes."""
    known = quotas.read(client(opened, "service-quotas"))
    for need in quotas.needs(settings):
        allowed = known.get(need.name)
        if allowed is None:
            yield Finding("unknown", f"no quota is called {need.name!r}", "is the instance type written right?")
        elif allowed < need.instances:
            yield Finding(
                "mend",
                f"quota {need.name!r} is {allowed:g}, {need.instances} are needed",
                "ask for more in the console of Service Quotas, or take another --instance-type",
            )
        else:
            yield Finding("well", f"quota {need.name!r} is {allowed:g}")


def pushed_images(opened: boto3.Session, settings: Settings, home: Home) -> Iterator[Finding]:
    """Whether the images are in ECR, by the digests that requests name, and for the right machines."""
    ecr: ECRClient = client(opened, "ecr")
    known = images.pushed(home, settings.destination)
    for job in jobs():
        if job not in known:
            yield Finding("mend", f"no image of {job} was pushed from here", f"microjobs push {job}")
            continue
        platforms = architecture.platforms(ecr, settings.destination.name(job), known[job].rpartition("@")[2])
        if not platforms:
            yield Finding("mend", f"{known[job]} is not in ECR any more", f"microjobs push {job}")
        elif PLATFORM not in platforms:
            remedy = f"`microjobs build {job}`, then `microjobs push {job}`"
            yield Finding("mend", f"{job} is for {', '.join(platforms)}, not {PLATFORM}", remedy)
        else:
            yield Finding("well", f"{job} is in ECR, for {PLATFORM}")


CHECKS: dict[str, Check] = {
    "the role": role,
    "the role's permissions": permissions,
    "the bucket": bucket,
    "quotas": instances,
    "images": pushed_images,
}
