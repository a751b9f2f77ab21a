"""Settings for tests."""

import pytest

from microjobs_orchestrator.aws.settings import Settings
from tests.launcher.conftest import cloud, screen, start_run

__all__ = ["cloud", "full_settings", "screen", "settings", "start_run"]

ROLE = "arn:aws:iam::123456789012:role/team/microjobs"


@pytest.fixture
def settings() -> Settings:
    return Settings(role=ROLE, bucket="bucket", region="us-east-1")


@pytest.fixture
def full_settings() -> Settings:
    """Settings that add every optional part of a request, such as the network, encryption and tags."""
    return Settings(
        role=ROLE,
        bucket="bucket",
        region="us-east-1",
        prefix="team/houses",
        instance_types={"train": "ml.g5.xlarge", "endpoint": "ml.c5.large"},
        endpoint_instances=2,
        spot=True,
        subnets=("subnet-1", "subnet-2"),
        security_groups=("sg-1",),
        kms_key="arn:aws:kms:us-east-1:123456789012:key/1",
        tags={"team": "houses"},
    )
