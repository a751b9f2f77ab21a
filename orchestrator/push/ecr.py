"""Repositories of Amazon ECR."""

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.registry_logins import ECR_HOST_PATTERN

if TYPE_CHECKING:
    from mypy_boto3_ecr import ECRClient

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


def check_account(registry: str, own_registry: str) -> None:
    """Check that a registry belongs to the same account as the credentials' own registry.

    Raises:
        UsageError: the registry belongs to another account.
    """
    target_host, own_host = ECR_HOST_PATTERN.fullmatch(registry), ECR_HOST_PATTERN.fullmatch(own_registry)
    if target_host and own_host and target_host["account"] != own_host["account"]:
        raise UsageError(
            f"--registry {registry} belongs to account {target_host['account']}, but these credentials belong to "
            f"account {own_host['account']}: choose other credentials with --profile"
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
    except BaseException:  # an incomplete repository is deleted, because the next push would keep it without a policy
        client.delete_repository(repositoryName=name)
        raise
    return True
