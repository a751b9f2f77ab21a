"""Identity of the local server: its account, region and credentials, names that contain them, and its proof.

After a crash, any user of the machine can listen on the server's port and answer `/health`. Therefore, a client sends a
random nonce, and the server returns a MAC of it. The MAC includes the port, the process and the home. Therefore,
another program cannot forward the nonce to the real server and return the MAC of that server.
"""

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ACCOUNT = "000000000000"
QUEUE_NAME_PATTERN = re.compile(r"(?!.{81})[A-Za-z0-9_-]+(\.fifo)?")
"""Pattern of the names of SQS queues on AWS. Botocore's model contains no pattern for these names."""
REGION = "us-east-1"
ROLE = "microjobs"
PACKAGES_PATH = "/_microjobs/packages"
"""Path of the server's cache of Python packages."""
MLFLOW_PATH = "/_microjobs/mlflow"
"""Path below which clients with a token reach MLflow servers: `mlflow-tracking-server/<name>`."""
PACKAGES_USER = "microjobs"
"""User name with which hosts request packages."""

NONCE_PATTERN = re.compile(r"[0-9a-f]{64}")

Prover = Callable[[str, str], str]
"""A function that takes a nonce and the port of the request, and returns the proof."""


@dataclass(frozen=True)
class Credentials:
    """Access key that signs requests. It is valid only for one home."""

    access_key_id: str
    secret_access_key: str


def get_default_bucket(region: str = REGION) -> str:
    """Return the name of the bucket that the SageMaker SDK uses by default."""
    return f"sagemaker-{region}-{ACCOUNT}"


def format_registry(region: str = REGION, account: str = ACCOUNT) -> str:
    """Return the host name of an account's ECR registry."""
    return f"{account}.dkr.ecr.{region}.amazonaws.com"


def get_role_arn() -> str:
    """Return the ARN of the role that clients pass to this server."""
    return f"arn:aws:iam::{ACCOUNT}:role/{ROLE}"


def format_arn(resource: str, region: str = REGION) -> str:
    """Return the ARN of a SageMaker resource such as `training-job/my-job`."""
    return f"arn:aws:sagemaker:{region}:{ACCOUNT}:{resource}"


def make_packages_token(key: str) -> str:
    """Return the password with which hosts request packages. It is derived from the home's key."""
    return hmac.new(key.encode(), b"microjobs packages", "sha256").hexdigest()


def make_mlflow_token(key: str) -> str:
    """Return the token with which MLflow clients that do not sign requests reach MLflow servers."""
    return hmac.new(key.encode(), b"microjobs mlflow", "sha256").hexdigest()


def prove_identity(key: str, home: Path, pid: int, nonce: str, port: str) -> str:
    """Return the proof that a process serves a home: a MAC of the nonce, in hexadecimal digits."""
    text = "\n".join(("microjobs server", nonce, port, str(pid), str(home.resolve())))
    return hmac.new(key.encode(), text.encode(), "sha256").hexdigest()
