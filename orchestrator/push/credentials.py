"""Who we are to a registry. Nothing of it is ever written down."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from microjobs_orchestrator.failures import UsageError

USER = "MICROJOBS_REGISTRY_USER"
PASSWORD = "MICROJOBS_REGISTRY_PASSWORD"  # noqa: S105 - a variable's name


@dataclass(frozen=True)
class Credentials:
    """A user with a password, or a token that stands for both."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def for_engine(self) -> dict[str, str]:
        """What the engine wants with each push."""
        if self.identity_token:
            return {"identitytoken": self.identity_token}
        return {"username": self.user, "password": self.password}


def find(host: str, environ: Mapping[str, str] = os.environ) -> Credentials | None:
    """From the environment; else from the Docker client's own settings, where `docker login` keeps them.

    Raises:
        UsageError: only one of the two variables is set.
        docker.errors.DockerException: the settings name a helper that fails.
    """
    from docker.auth import load_config

    user, password = environ.get(USER), environ.get(PASSWORD)
    if user and password:
        return Credentials(user, password)
    if user or password:
        raise UsageError(f"only {USER if user else PASSWORD} is set: set {PASSWORD if user else USER} too, or neither")
    # A helper's answer has its names in capitals, a file's has not.
    known = {key.lower(): value for key, value in (load_config().resolve_authconfig(host) or {}).items()}
    if not (known.get("identitytoken") or known.get("username")):
        return None
    return Credentials(known.get("username", ""), known.get("password", ""), known.get("identitytoken", ""))
