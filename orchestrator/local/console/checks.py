"""Checks that refuse requests from pages of other origins, and the headers of the console's responses."""

import re
from collections.abc import Mapping
from http import HTTPStatus

from werkzeug import Request

from microjobs_orchestrator.local.console_address import CONSOLE_PATH
from microjobs_orchestrator.local.errors import ServiceError

HOST_PATTERN = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?")
"""Matches the hosts of the console's addresses. A page that uses DNS rebinding sends its own domain name."""


def check_origin(request: Request) -> None:
    """Refuse requests from pages of other origins, except requests of links that lead to the console.

    Browsers send `Origin` with each POST request, and `Sec-Fetch-Site` with all requests.

    Raises:
        ServiceError: the request names another host, or comes from a page of another origin.
    """
    host = request.headers.get("Host", "")
    if not HOST_PATTERN.fullmatch(host):
        raise _make_denied_error(f"the host {host!r} is not a host of the console: open the console at 127.0.0.1")
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "same-origin")
    if origin not in (None, f"http://{host}"):
        raise _make_denied_error(f"requests from pages of {origin!r} are refused")
    is_link = request.method == "GET" and request.headers.get("Sec-Fetch-Mode") == "navigate"
    if site not in ("same-origin", "none") and not is_link:
        raise _make_denied_error(f"requests from other pages are refused (Sec-Fetch-Site: {site})")


def check_api_request(request: Request, max_bytes: int) -> None:
    """Refuse requests that a form on another page could send, and requests with long bodies.

    Raises:
        ServiceError: the request is not a POST request with JSON and an origin, or its body is too long.
    """
    if request.method != "POST":
        raise ServiceError("MethodNotAllowed", "the console's operations accept only POST requests", 405)
    if request.headers.get("Origin") is None:
        raise _make_denied_error("the header Origin is missing")
    if request.mimetype != "application/json":
        raise ServiceError("UnsupportedMediaType", "the console's operations accept only application/json", 415)
    if request.content_length is None:
        raise ServiceError("LengthRequired", "the header Content-Length is missing", HTTPStatus.LENGTH_REQUIRED)
    if request.content_length > max_bytes:
        raise ServiceError("RequestEntityTooLarge", f"the body is larger than {max_bytes} bytes", 413)


def _make_denied_error(message: str) -> ServiceError:
    return ServiceError("AccessDeniedException", message, 403)


def make_headers(request: Request) -> Mapping[str, str]:
    """Return the headers of all responses below `CONSOLE_PATH`.

    The policy lets browsers load scripts and styles only from the folder of assets. Objects of buckets have the same
    origin as the console, so without this policy an object could be a script of the console.
    """
    host = request.headers.get("Host", "")
    root = f"http://{host}{CONSOLE_PATH}" if HOST_PATTERN.fullmatch(host) else "http://127.0.0.1/"
    assets, api = f"{root}assets/", f"{root}api/"
    policy = (
        "default-src 'none'",
        f"script-src {assets}",
        f"style-src {assets}",
        f"img-src {assets} data: blob:",
        f"connect-src {api}",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
