"""Amazon's registry: its repositories, and the token that opens it for twelve hours."""

import base64
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3

from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.push.credentials import Credentials

if TYPE_CHECKING:
    from mypy_boto3_ecr import ECRClient

# https://docs.aws.amazon.com/AmazonECR/latest/userguide/Registries.html
_HOST = re.compile(
    r"(?P<account>\d{12})\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|on\.aws)"
)

KEPT = 50
KEPT_DIRTY = 10
KEPT_UNTAGGED = 5


def _expire(priority: int, kept: int, description: str, **selection: object) -> dict[str, object]:
    return {
        "rulePriority": priority,
        "description": description,
        "selection": {**selection, "countType": "imageCountMoreThan", "countNumber": kept},
        "action": {"type": "expire"},
    }


LIFECYCLE = json.dumps(
    {
        "rules": [
            _expire(1, KEPT_UNTAGGED, "images that lost their tag", tagStatus="untagged"),
            _expire(2, KEPT_DIRTY, "images of no commit", tagStatus="tagged", tagPatternList=["*-dirty-*"]),
            _expire(3, KEPT, "old images", tagStatus="any"),
        ]
    }
)
"""A new repository's rule: what is more than this many, the oldest first, is deleted."""


@dataclass(frozen=True)
class Account:
    """Where ECR lets us in, and as whom."""

    host: str
    credentials: Credentials


def region_of(host: str) -> str | None:
    """The region of an ECR registry; None for any other registry."""
    match = _HOST.fullmatch(host)
    return match["region"] if match else None


def connect(region: str | None, profile: str | None) -> "ECRClient":
    """A client; region and credentials as boto3 finds them where they are not given."""
    return boto3.Session(profile_name=profile, region_name=region).client("ecr")


def log_in(client: "ECRClient") -> Account:
    """Ask for a token: it is held in memory alone."""
    (given,) = client.get_authorization_token()["authorizationData"]
    user, _, password = base64.b64decode(given["authorizationToken"]).decode().partition(":")
    return Account(urlsplit(given["proxyEndpoint"]).netloc, Credentials(user, password))


def check_account(named: str, ours: str) -> None:
    """Refuse a registry that these credentials do not open.

    Raises:
        UsageError: it is another account's.
    """
    wanted, there = _HOST.fullmatch(named), _HOST.fullmatch(ours)
    if wanted and there and wanted["account"] != there["account"]:
        raise UsageError(
            f"--registry {named} is of account {wanted['account']}, these credentials are of {there['account']}: "
            "choose others with --profile"
        )


def need_repository(client: "ECRClient", name: str) -> bool:
    """Make a repository if it is missing: scanned on push, tags immutable, old images expire.

    One that is there stays as it is: somebody may have wanted it so.

    Returns:
        Whether it was made.
    """
    try:
        client.describe_repositories(repositoryNames=[name])
    except client.exceptions.RepositoryNotFoundException:
        _make(client, name)
        return True
    return False


def _make(client: "ECRClient", name: str) -> None:
    client.create_repository(
        repositoryName=name, imageTagMutability="IMMUTABLE", imageScanningConfiguration={"scanOnPush": True}
    )
    try:
        client.put_lifecycle_policy(repositoryName=name, lifecyclePolicyText=LIFECYCLE)
    except BaseException:  # the next push would take it for finished
        client.delete_repository(repositoryName=name)
        raise
