"""Logins for registries of images: from the settings that `docker login` writes, and from Amazon ECR.

No login is stored: passwords and tokens are only in memory.
"""

import base64
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from botocore.config import Config
    from mypy_boto3_ecr import ECRClient

# https://docs.aws.amazon.com/AmazonECR/latest/userguide/Registries.html
ECR_HOST_PATTERN = re.compile(
    r"(?P<account>\d{12})\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|on\.aws)"
)


@dataclass(frozen=True)
class RegistryLogin:
    """A user and a password, or an identity token that replaces both."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def make_auth_config(self) -> dict[str, str]:
        """Return the login in the form that the engine's API requires.

        https://docs.docker.com/reference/api/engine/version/v1.45/#section/Authentication
        """
        if self.identity_token:
            return {"identitytoken": self.identity_token}
        return {"username": self.user, "password": self.password}


def read_docker_login(host: str) -> RegistryLogin | None:
    """Return the login that `docker login` or a credential helper stores for a registry; None if there is none.

    Raises:
        docker.errors.DockerException: the credential helper of the settings fails.
    """
    from docker.auth import load_config  # this import is slow

    # A credential helper returns capitalised keys (`Username`), and a settings file has lower-case keys.
    login = {key.lower(): value for key, value in (load_config().resolve_authconfig(host) or {}).items()}
    if not (login.get("identitytoken") or login.get("username")):
        return None
    return RegistryLogin(login.get("username", ""), login.get("password", ""), login.get("identitytoken", ""))


def parse_ecr_region(host: str) -> str | None:
    """Return the region of an ECR registry, or None for any other registry."""
    match = ECR_HOST_PATTERN.fullmatch(host)
    return match["region"] if match else None


def connect_to_ecr(region: str | None, profile: str | None = None, config: "Config | None" = None) -> "ECRClient":
    """Return boto3's client for ECR. If the region or the profile is None, boto3 chooses it."""
    import boto3  # this import is slow

    return boto3.Session(profile_name=profile, region_name=region).client("ecr", config=config)


def log_in_to_ecr(client: "ECRClient") -> tuple[str, RegistryLogin]:
    """Request a login token, which is valid for twelve hours. Return the host of the account's registry and the login.

    The token is valid for all registries in the region that this user may use.
    """
    (data,) = client.get_authorization_token()["authorizationData"]
    user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
    return urlsplit(data["proxyEndpoint"]).netloc, RegistryLogin(user, password)
