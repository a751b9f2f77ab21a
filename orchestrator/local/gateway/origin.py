"""Interceptors that check a request's host and origin before all other checks, and that answer health checks."""

import json
import os
import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any

from werkzeug import Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.request_state import Interceptor, RequestState
from microjobs_orchestrator.local.identity import NONCE_PATTERN, Prover
from microjobs_orchestrator.local.protocols.http import get_headers

HEALTH_PATHS = ("/health", "/_microjobs/health")

HOST_HEADER_PATTERN = re.compile(r"([a-z0-9.-]+)(:\d{1,5})?", re.IGNORECASE)
"""A Host header with a name or an IPv4 address."""
IPV4_PATTERN = re.compile(r"(\d{1,3}\.){3}\d{1,3}")
ANY_ADDRESS = "any IPv4 address"
"""An entry in the list of a server's names that stands for each IPv4 address. It is safe against DNS rebinding: a page
that uses DNS rebinding sends its domain name as the host, never an address."""


def make_host_check(names: Collection[str]) -> Interceptor:
    """Return an interceptor that refuses requests whose host is neither one of `names` nor a subdomain of one.

    The domain name of a web page can resolve to this server (DNS rebinding). The page's requests are then refused,
    because browsers send the domain name of the page as the host.
    """
    known_hosts = sorted({name.lower() for name in names})

    @lru_cache(maxsize=64)
    def is_known(host_header: str) -> bool:
        match = HOST_HEADER_PATTERN.fullmatch(host_header)
        host = match[1].lower() if match else ""
        if ANY_ADDRESS in names and IPV4_PATTERN.fullmatch(host):
            return True
        return any(host == name or host.endswith(f".{name}") for name in known_hosts)

    def check_host(state: RequestState) -> None:
        host_header = get_headers(state.request).get("host", "")
        if not is_known(host_header):
            message = f"host {host_header!r} is not this server's; use {', '.join(known_hosts)}"
            raise ServiceError("AccessDeniedException", message, 403)

    return check_host


def refuse_requests_of_web_pages(state: RequestState) -> None:
    """Refuse requests with an `Origin`, even with a presigned URL: this server has no CORS rules.

    Browsers do not send `Origin` when they request images, scripts and links of a page, so this function does not
    refuse such requests. Such requests need valid credentials, except health checks, which test `Sec-Fetch-Site`.
    """
    if (origin := get_headers(state.request).get("origin")) is not None:
        message = f"requests from web pages of {origin!r} are refused: this server has no CORS rules"
        raise ServiceError("AccessDeniedException", message, 403)


def make_health_check(prove: Prover) -> Interceptor:
    """Return an interceptor that answers health checks, which are not signed.

    The command `microjobs` sends a nonce. The proof in the response shows that the server knows the secret of the home.
    """

    def answer_health(state: RequestState) -> Response | None:
        request = state.request
        if request.path not in HEALTH_PATHS or request.method != "GET" or "Authorization" in request.headers:
            return None
        if request.headers.get("Sec-Fetch-Site", "none") != "none":
            raise ServiceError("AccessDeniedException", "requests from web pages are refused", 403)
        content: dict[str, Any] = {"status": "ok", "pid": os.getpid()}
        nonce = request.args.get("nonce", "")
        if NONCE_PATTERN.fullmatch(nonce):
            content["proof"] = prove(nonce, request.environ["SERVER_PORT"])
        return Response(json.dumps(content) + "\n", content_type="application/json")

    return answer_health
