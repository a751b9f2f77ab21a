"""Login for a registry, in memory only."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from microjobs_orchestrator.failures import UsageError

USER = "MICROJOBS_REGISTRY_USER"
PASSWORD = "MICROJOBS_REGISTRY_PASSWORD"  # noqa: S105 - a variable's name


@dataclass(frozen=True)
class Credentials:
    """A user and a password, or an identity token that replaces both."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def auth_config(self) -> dict[str, str]:
        """Return the login as the engine's API takes it.

        https://docs.docker.com/reference/api/engine/version/v1.45/#section/Authentication
        """
        if self.identity_token:
            return {"identitytoken": self.identity_token}
        return {"username": self.user, "password": self.password}


def read_credentials(host: str, environ: Mapping[str, str] = os.environ) -> Credentials | None:
    """Read the login from the environment, or from the settings that `docker login` writes.

    Raises:
        UsageError: only one of the two variables is set.
        docker.errors.DockerException: the credential helper of the settings fails.
    """
    from docker.auth import load_config

    user, password = environ.get(USER), environ.get(PASSWORD)
    if user and password:
        return Credentials(user, password)
    if user or password:
        raise UsageError(
            f"only {USER if user else PASSWORD} is set: also set {PASSWORD if user else USER}, or unset both"
        )
    # A credential helper returns capitalised keys (`Username`), and a settings file has lower-case keys.
    login = {key.lower(): value for key, value in (load_config().resolve_authconfig(host) or {}).items()}
    if not (login.get("identitytoken") or login.get("username")):
        return None
    return Credentials(login.get("username", ""), login.get("password", ""), login.get("identitytoken", ""))
