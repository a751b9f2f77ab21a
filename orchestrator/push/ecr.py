"""Amazon ECR: repositories, and the login token, which is valid for twelve hours."""

import base64
import json
import re
from contextlib import suppress
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

MAX_IMAGES = 50
MAX_DIRTY_IMAGES = 10
MAX_UNTAGGED_IMAGES = 5


def _make_rule(priority: int, max_images: int, description: str, **selection: object) -> dict[str, object]:
    return {
        "rulePriority": priority,
        "description": description,
        "selection": {**selection, "countType": "imageCountMoreThan", "countNumber": max_images},
        "action": {"type": "expire"},
    }


LIFECYCLE_POLICY = json.dumps(
    {
        "rules": [
            _make_rule(1, MAX_UNTAGGED_IMAGES, "images that lost their tag", tagStatus="untagged"),
            _make_rule(
                2, MAX_DIRTY_IMAGES, "images that match no commit", tagStatus="tagged", tagPatternList=["*-dirty-*"]
            ),
            _make_rule(3, MAX_IMAGES, "old images", tagStatus="any"),
        ]
    }
)
"""The lifecycle policy of a new repository: ECR deletes the oldest images above these limits."""


def parse_region(host: str) -> str | None:
    """Return the region of an ECR registry, or None for any other registry."""
    match = _HOST.fullmatch(host)
    return match["region"] if match else None


def connect(region: str | None, profile: str | None) -> "ECRClient":
    """Return a client. If the region or the profile is None, boto3 chooses it."""
    return boto3.Session(profile_name=profile, region_name=region).client("ecr")


def log_in(client: "ECRClient") -> tuple[str, Credentials]:
    """Request a login token, which is kept in memory only. Return the host of the account's registry and the login."""
    (data,) = client.get_authorization_token()["authorizationData"]
    user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
    return urlsplit(data["proxyEndpoint"]).netloc, Credentials(user, password)


def check_account(registry: str, own_registry: str) -> None:
    """Check that a registry belongs to the same account as the credentials' own registry.

    Raises:
        UsageError: it belongs to another account.
    """
    target, own = _HOST.fullmatch(registry), _HOST.fullmatch(own_registry)
    if target and own and target["account"] != own["account"]:
        raise UsageError(
            f"--registry {registry} belongs to account {target['account']}, but these credentials belong to account "
            f"{own['account']}: choose other credentials with --profile"
        )


def create_missing_repository(client: "ECRClient", name: str) -> bool:
    """Create a repository with scans on push, immutable tags and a lifecycle policy. Return False if it exists.

    The settings of an existing repository are not changed.
    """
    with suppress(client.exceptions.RepositoryNotFoundException):
        client.describe_repositories(repositoryNames=[name])
        return False
    client.create_repository(
        repositoryName=name, imageTagMutability="IMMUTABLE", imageScanningConfiguration={"scanOnPush": True}
    )
    try:
        client.put_lifecycle_policy(repositoryName=name, lifecyclePolicyText=LIFECYCLE_POLICY)
    except BaseException:  # otherwise the next push would keep the repository without a policy
        client.delete_repository(repositoryName=name)
        raise
    return True
