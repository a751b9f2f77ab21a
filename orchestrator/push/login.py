"""Login for the registry of a push."""

import os
from collections.abc import Mapping

from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.registry_logins import RegistryLogin, read_docker_login

USER_VARIABLE = "MICROJOBS_REGISTRY_USER"
PASSWORD_VARIABLE = "MICROJOBS_REGISTRY_PASSWORD"  # noqa: S105  the name of a variable


def read_login(host: str, environ: Mapping[str, str] = os.environ) -> RegistryLogin | None:
    """Read the login from the environment, or from the settings that `docker login` writes.

    Raises:
        UsageError: only one of the two variables is set.
        docker.errors.DockerException: the credential helper of the settings fails.
    """
    user, password = environ.get(USER_VARIABLE), environ.get(PASSWORD_VARIABLE)
    if user and password:
        return RegistryLogin(user, password)
    if user or password:
        set_variable, missing_variable = (
            (USER_VARIABLE, PASSWORD_VARIABLE) if user else (PASSWORD_VARIABLE, USER_VARIABLE)
        )
        raise UsageError(f"only {set_variable} is set: also set {missing_variable}, or unset both")
    return read_docker_login(host)
