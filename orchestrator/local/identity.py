"""The local server's account: its id, region, credentials, and the names that contain them."""

from dataclasses import dataclass

ACCOUNT = "000000000000"
REGION = "us-east-1"
ROLE = "microjobs"


@dataclass(frozen=True)
class Credentials:
    """Access key that requests are signed with. It is created for one home and is valid nowhere else."""

    access_key_id: str
    secret_access_key: str


def get_default_bucket(region: str = REGION) -> str:
    """Return the name of the bucket that the SageMaker SDK uses by default."""
    return f"sagemaker-{region}-{ACCOUNT}"


def format_registry(region: str = REGION, account: str = ACCOUNT) -> str:
    """Return the host name of an account's ECR registry."""
    return f"{account}.dkr.ecr.{region}.amazonaws.com"


def format_arn(resource: str, region: str = REGION) -> str:
    """Return the ARN of a SageMaker resource such as `training-job/my-job`."""
    return f"arn:aws:sagemaker:{region}:{ACCOUNT}:{resource}"
