"""Serves Python packages to the hosts of jobs: the interceptor for the paths of the package cache.

Hosts authenticate with a token in the address of the index, because `pip` cannot sign requests.
"""

import base64
import hmac
from pathlib import Path

from werkzeug import Request, Response
from werkzeug.utils import send_file

from microjobs_orchestrator.local.gateway.request_state import Interceptor, RequestState
from microjobs_orchestrator.local.identity import PACKAGES_PATH, PACKAGES_USER
from microjobs_orchestrator.local.package_cache import (
    FILE_NAME_PATTERN,
    PROJECT_NAME_PATTERN,
    NotFoundError,
    PackageCache,
    PackageError,
    format_page,
)

FILE_TYPE = "application/octet-stream"


def make_package_interceptor(cache: PackageCache, token: str) -> Interceptor:
    """Return an interceptor that answers GET and HEAD requests for packages.

    Args:
        token: the password of `PACKAGES_USER`.
    """
    authorization = "Basic " + base64.b64encode(f"{PACKAGES_USER}:{token}".encode()).decode()

    def answer_package_request(state: RequestState) -> Response | None:
        request = state.request
        if not request.path.startswith(f"{PACKAGES_PATH}/"):
            return None
        if not hmac.compare_digest(request.headers.get("Authorization", "").encode(), authorization.encode()):
            return _refuse(
                401,
                "missing or wrong password: only hosts of jobs may read packages",
                {"WWW-Authenticate": 'Basic realm="microjobs"'},
            )
        if request.method not in ("GET", "HEAD"):
            return _refuse(405, "packages cannot be changed", {"Allow": "GET, HEAD"})
        try:
            return _answer(request, cache)
        except PackageError as error:
            return _refuse(error.status, str(error))

    return answer_package_request


def _answer(request: Request, cache: PackageCache) -> Response:
    match request.path.removeprefix(f"{PACKAGES_PATH}/").split("/"):
        case ["simple", project, ""] if PROJECT_NAME_PATTERN.fullmatch(project):
            return Response(format_page(project, cache.list_files(project)), content_type="text/html; charset=utf-8")
        case ["files", project, name] if PROJECT_NAME_PATTERN.fullmatch(project) and FILE_NAME_PATTERN.fullmatch(name):
            content = cache.open(project, name)
            if isinstance(content, Path):
                return send_file(content, request.environ, mimetype=FILE_TYPE, conditional=True)
            return Response(content, content_type=FILE_TYPE)
    raise NotFoundError(f"{request.path} is not the path of a project or a file")


def _refuse(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error whose status line contains the reason, because `pip` prints only the status line."""
    line = reason.encode("ascii", "replace").decode().replace("\r", " ").replace("\n", " ")
    return Response(f"{reason}\n", f"{status} {line}", headers, content_type="text/plain; charset=utf-8")
