"""Login for the registry of a push."""

import os
from collections.abc import Mapping

from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.registry_logins import RegistryLogin, read_docker_login

USER = "MICROJOBS_REGISTRY_USER"
PASSWORD = "MICROJOBS_REGISTRY_PASSWORD"  # noqa: S105 - a variable's name


def read_credentials(host: str, environ: Mapping[str, str] = os.environ) -> RegistryLogin | None:
    """Read the login from the environment, or from the settings that `docker login` writes.

    Raises:
        UsageError: only one of the variables USER and PASSWORD is set.
        docker.errors.DockerException: the credential helper of the settings fails.
    """
    user, password = environ.get(USER), environ.get(PASSWORD)
    if user and password:
        return RegistryLogin(user, password)
    if user or password:
        raise UsageError(
            f"only {USER if user else PASSWORD} is set: also set {PASSWORD if user else USER}, or unset both"
        )
    return read_docker_login(host)
