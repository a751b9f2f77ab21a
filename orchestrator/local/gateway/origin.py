"""Checks of where a request comes from, before anything else about it matters."""

import json
import os
import re
from collections.abc import Collection
from typing import Any

from werkzeug import Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.exchange import Exchange, Interceptor
from microjobs_orchestrator.local.proof import NONCE, Prover

HEALTH_PATHS = ("/health", "/_microjobs/health")

HOST = re.compile(r"([a-z0-9.-]+)(:\d{1,5})?", re.IGNORECASE)
"""A Host header with a name or an address of IPv4."""


def make_host_check(names: Collection[str]) -> Interceptor:
    """Return an interceptor that refuses other hosts than these and their subdomains.

    A page in a browser can let a name of its own lead to this server, but must send that name (DNS rebinding).
    """
    known = sorted({name.lower() for name in names})

    def check_host(exchange: Exchange) -> None:
        sent = exchange.request.headers.get("Host", "")
        match = HOST.fullmatch(sent)
        host = match[1].lower() if match else ""
        if not any(host == name or host.endswith(f".{name}") for name in known):
            message = f"host {sent!r} is not this server's, which is {', '.join(known)}"
            raise ServiceError("AccessDeniedException", message, 403)

    return check_host


def refuse_pages(exchange: Exchange) -> None:
    """Refuse requests of web pages, even to a signed address: this server has no CORS rules.

    Browsers send the page's origin with all requests but plain loads. Those have `Sec-Fetch-Site`.
    """
    page = exchange.request.headers.get("Origin")
    if page is not None:
        message = f"pages of {page!r} may not ask: this server has no CORS rules"
        raise ServiceError("AccessDeniedException", message, 403)


def make_health_check(prove: Prover) -> Interceptor:
    """Return an interceptor that answers health checks, which are not signed.

    The project's own command line asks with a nonce and gets a proof that this is the server of its home.
    """

    def answer_health(exchange: Exchange) -> Response | None:
        request = exchange.request
        if request.path not in HEALTH_PATHS or request.method != "GET" or "Authorization" in request.headers:
            return None
        if request.headers.get("Sec-Fetch-Site", "none") != "none":
            raise ServiceError("AccessDeniedException", "pages of other sites may not ask", 403)
        content: dict[str, Any] = {"status": "ok", "pid": os.getpid()}
        nonce = request.args.get("nonce", "")
        if NONCE.fullmatch(nonce):
            content["proof"] = prove(nonce, request.environ["SERVER_PORT"])
        return Response(json.dumps(content) + "\n", content_type="application/json")

    return answer_health
