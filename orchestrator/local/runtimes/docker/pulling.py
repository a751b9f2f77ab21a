"""Pulls of images, with the logins that the user has on this machine.

The engine stores no logins: each request for a private image contains one. The sources of logins are read for each
pull, so that a new login is used at once.
"""

import functools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlsplit

import docker
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from docker.auth import INDEX_NAME, resolve_repository_name
from docker.errors import DockerException
from docker.models.images import Image
from docker.utils import parse_repository_tag

from microjobs_orchestrator import registry_logins
from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.runtimes.docker.engine import UNREACHABLE_ERRORS
from microjobs_orchestrator.registry_logins import RegistryLogin

logger = logging.getLogger(__name__)

AWS_CONFIG = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "max_attempts": 2})
"""Settings with short time limits, because a job waits for the pull."""

LOOPBACK_NAMES = ("127.0.0.1", "localhost")

PULL_ERRORS = (DockerException, BotoCoreError, ClientError, CommandError, *UNREACHABLE_ERRORS)
"""Errors of a login or of a pull. After one of these errors, the next login is tried."""


@dataclass(frozen=True)
class LoginSource:
    """A source of logins."""

    name: str
    """The words for the source in error messages, such as `without a login`."""
    log_in: Callable[[], RegistryLogin | None]
    """Returns None if the source has no login for the registry. It raises one of `PULL_ERRORS` if it fails."""


NO_LOGIN = LoginSource("without a login", RegistryLogin)


def pull(client: docker.DockerClient, name: str, remedy: str, stopped: threading.Event | None = None) -> Image:
    """Pull an image with the first login that the registry accepts; without a login if no source returns one.

    Raises:
        CannotRunError: no pull succeeds: the message has the error of each login, and ends with the remedy. Or
            `stopped` was set during the pull.
    """
    logger.info("pulling %s", name)
    problems: list[str] = []
    has_login = False
    for source in (*_list_sources(_find_host(name)), NO_LOGIN):
        if source is NO_LOGIN and has_login:
            break
        try:
            if credentials := source.log_in():
                has_login = True
                return _pull(client, name, credentials, stopped)
        except PULL_ERRORS as error:
            problems.append(f"{source.name}: {_describe(error)}")
    message = f"image {name} is not on this machine and cannot be pulled ({'; '.join(problems)}): {remedy}"
    raise CannotRunError(message)


def make_login_remedy(name: str) -> str:
    """Return instructions for the login to an image's registry."""
    host = _find_host(name)
    if region := registry_logins.parse_ecr_region(host):
        return (
            "start the server with AWS credentials that may pull the image, or run `aws ecr get-login-password "
            f"--region {region} | docker login --username AWS --password-stdin {host}`, then start the job again"
        )
    return f"log in (`docker login{'' if host == INDEX_NAME else f' {host}'}`) and start the job again"


def _find_host(name: str) -> str:
    host: str = resolve_repository_name(parse_repository_tag(name)[0])[0]
    return host


def _list_sources(host: str) -> Iterator[LoginSource]:
    yield LoginSource("with the login of `docker login`", lambda: registry_logins.read_docker_login(host))
    if region := registry_logins.parse_ecr_region(host):
        yield LoginSource(
            "with a token of ECR for the server's AWS credentials", functools.partial(_request_ecr_token, region)
        )


def _request_ecr_token(region: str) -> RegistryLogin:
    with closing(registry_logins.connect_to_ecr(region, config=AWS_CONFIG)) as client:
        url = client.meta.endpoint_url
        if urlsplit(url).hostname in LOOPBACK_NAMES:
            raise CommandError(
                f"AWS_ENDPOINT_URL names {url}, which is not AWS: start the server without this variable "
                "(`microjobs local env --unset`)"
            )
        return registry_logins.log_in_to_ecr(client)[1]


def _pull(client: docker.DockerClient, name: str, credentials: RegistryLogin, stopped: threading.Event | None) -> Image:
    """Pull an image. A successful response can contain errors: Podman reports all errors in the response, and Docker
    reports some."""
    auth_config = {} if credentials == RegistryLogin() else credentials.make_auth_config()
    for event in client.api.pull(name, stream=True, decode=True, auth_config=auth_config):
        if error := event.get("error"):
            raise DockerException(error)
        if stopped and stopped.is_set():  # the engine ends the pull when this connection is closed
            raise CannotRunError(f"the pull of image {name} was stopped")
    return client.images.get(name)


def _describe(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error).strip()
