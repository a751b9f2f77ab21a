"""Forwards requests to MLflow servers, after the gateway has authenticated them in one of three ways.

- A signature, with the server's ARN in a header: the package sagemaker-mlflow.
- A token, with the server's name in the path: other MLflow clients, which cannot sign.
- The cookie of a session, on a host name of the session: browsers.
"""

import hmac
import logging
from collections.abc import Iterator, Mapping
from functools import partial
from http import HTTPStatus

from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.claims import AuthError
from microjobs_orchestrator.local.gateway.exchange import MLFLOW_HEADERS, MLFLOW_SERVICE, Exchange
from microjobs_orchestrator.local.gateway.header_fields import drop_headers
from microjobs_orchestrator.local.gateway.streams import Input
from microjobs_orchestrator.local.identity import MLFLOW_PATH, format_arn
from microjobs_orchestrator.local.protocols.http import get_headers, get_target
from microjobs_orchestrator.local.protocols.protocol import get_protocol
from microjobs_orchestrator.local.resources.mlflow import registration
from microjobs_orchestrator.local.resources.mlflow.clients import Connector
from microjobs_orchestrator.local.resources.models import client
from microjobs_orchestrator.local.ui_sessions import HOST, UiSessions

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 600.0
"""Time for a whole response, also for the download of a large artifact."""
AUTH_PATH = "/auth"
COOKIE = "microjobs-mlflow"

PRIVATE_HEADERS = frozenset(
    {
        *("authorization", "cookie", "expect", "host", "origin", "referer", "content-length", "transfer-encoding"),
        *MLFLOW_HEADERS,
    }
)
"""Headers of a request that are not forwarded. Those that begin with x-amz- and sec- are not forwarded either."""

PAGE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'self'",
        )
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
}
"""Headers of all responses to browsers. MLflow's pages use inline styles and scripts. They may not load other
sites' files."""


class MlflowGateway:
    """Interceptors that forward requests.

    Args:
        find: finds the process of a server.
        sessions: the sessions of browsers.
        token: the token of clients that do not sign requests.
        region: the region in the ARNs of servers.
        register: receives the responses to requests that create versions of models.
    """

    def __init__(
        self, find: Connector, sessions: UiSessions, token: str, region: str, register: registration.Register
    ) -> None:
        self._find = find
        self._register = register
        self._sessions = sessions
        self._authorization = f"Bearer {token}".encode()
        self._region = region

    def answer_signed(self, exchange: Exchange) -> Response | None:
        """Forward a request whose signature has been verified, and includes the server's ARN."""
        if exchange.service != MLFLOW_SERVICE:
            return None
        headers = get_headers(exchange.request)
        names = [name for name in MLFLOW_HEADERS if name in headers]
        if len(names) != 1 or names[0] not in exchange.claim.signed_headers:
            raise AuthError("signature", f"exactly one of the headers {', '.join(MLFLOW_HEADERS)} must be signed")
        path, query = get_target(exchange.request)
        return self._forward(exchange, headers[names[0]], path, query, exchange.request.get_data() or None)

    def answer_token(self, exchange: Exchange) -> Response | None:
        """Forward a request below `MLFLOW_PATH`, which has the token."""
        request = exchange.request
        path, query = get_target(request)
        if not f"{path}/".startswith(f"{MLFLOW_PATH}/"):
            return None
        exchange.protocol = get_protocol("json")
        if not hmac.compare_digest(request.headers.get("Authorization", "").encode(), self._authorization):
            remedy = "`microjobs local env --mlflow NAME` prints MLFLOW_TRACKING_URI and MLFLOW_TRACKING_TOKEN"
            raise ServiceError("AccessDeniedException", f"the token is missing or wrong: {remedy}", 401)
        kind, _, rest = path.removeprefix(f"{MLFLOW_PATH}/").partition("/")
        name, _, rest = rest.partition("/")
        arn = format_arn(f"{kind}/{name}", self._region)
        return self._forward(exchange, arn, f"/{rest}", query, _stream_body(request))

    def answer_page(self, exchange: Exchange) -> Response | None:
        """Answer a request to a session's host name: open the session, or forward the request."""
        request = exchange.request
        host = HOST.fullmatch(get_headers(request).get("host", ""))
        if host is None or host["program"] != "mlflow":
            return None
        exchange.protocol, exchange.headers = get_protocol("json"), PAGE_HEADERS
        try:
            return self._answer_page(exchange, host["label"])
        except ServiceError as error:  # browsers show text, and download JSON of AWS's media type
            return Response(f"{error.message}\n", error.status, content_type="text/plain; charset=utf-8")

    def _answer_page(self, exchange: Exchange, label: str) -> Response:
        request = exchange.request
        _check_origin(request)
        if request.path == AUTH_PATH and request.method == "GET":
            return self._open_session(request, label)
        arn = self._sessions.find(label, request.cookies.get(COOKIE, ""))
        return self._forward(exchange, arn, *get_target(request), _stream_body(request))

    def _open_session(self, request: Request, label: str) -> Response:
        cookie, seconds = self._sessions.open(label, request.args.get("authToken", ""))
        response = Response(status=303, headers={"Location": "/", "Cache-Control": "no-store"})
        response.set_cookie(COOKIE, cookie, max_age=int(seconds), httponly=True, samesite="Lax")
        return response

    def _forward(self, exchange: Exchange, arn: str, path: str, query: str, body: client.Body) -> Response:
        request, connection = exchange.request, client.Client(self._find(arn))
        target = f"{path}?{query}" if query else path
        method = "GET" if request.method == "HEAD" else request.method
        headers = _select_headers(request, is_stream=callable(body))
        try:
            found = connection.open(method, target, body, headers, timeout=TIMEOUT_SECONDS)
        except client.NoAnswerError as error:
            connection.close()
            raise ServiceError("ServiceUnavailable", f"{arn} does not answer: {error}", 503) from error
        except ValueError as error:
            connection.close()
            raise ServiceError("ValidationException", f"the request cannot be forwarded: {error}") from error
        response = _make_response(found, connection, arn)
        if path.endswith(registration.PATH) and found.status == HTTPStatus.OK:
            self._register(arn, response.get_data())  # a small response: the description of the version
        return response


def _check_origin(request: Request) -> None:
    """Refuse requests of pages of other origins. A link on another page may lead to the session.

    Raises:
        ServiceError: a page of another origin has sent the request.
    """
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "same-origin")
    is_link = request.method == "GET" and request.headers.get("Sec-Fetch-Mode") == "navigate"
    if origin not in (None, f"http://{request.headers['Host']}"):
        raise ServiceError("AccessDeniedException", f"requests of pages of {origin!r:.200} are refused", 403)
    if site not in ("same-origin", "none") and not is_link:
        raise ServiceError("AccessDeniedException", "requests of other pages are refused", 403)


def _stream_body(request: Request) -> client.Body:
    """Return the body, which is read while it is sent; None if the request has none."""
    if not (request.content_length or "Transfer-Encoding" in request.headers):
        return None
    return lambda: iter(partial(Input(request.environ["wsgi.input"]).read), b"")


def _select_headers(request: Request, *, is_stream: bool) -> dict[str, str]:
    kept = drop_headers(dict(request.headers), PRIVATE_HEADERS)
    selected = {name: value for name, value in kept.items() if not name.lower().startswith(("x-amz", "sec-"))}
    if is_stream and request.content_length:
        selected["Content-Length"] = str(request.content_length)
    return selected


def _make_response(found: client.Response, connection: client.Client, arn: str) -> Response:
    headers = drop_headers(found.headers, ("date", "server", "set-cookie"))
    response = Response(_read(found, arn), found.status, headers)
    if "content-type" not in headers:
        del response.headers["Content-Type"]  # werkzeug's default
    response.call_on_close(found.close)
    response.call_on_close(connection.close)
    return response


def _read(found: client.Response, arn: str) -> Iterator[bytes]:
    try:
        yield from found.chunks()
    except client.NoAnswerError as error:  # the client sees that the body is incomplete
        logger.warning("the response of %s is incomplete: %s", arn, error)
        raise ConnectionAbortedError(str(error)) from error
