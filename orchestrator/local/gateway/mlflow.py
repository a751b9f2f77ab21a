"""Forwards requests to MLflow servers, after the gateway has authenticated them in one of three ways.

- The package sagemaker-mlflow signs requests, and sends the server's ARN in a header.
- Other MLflow clients cannot sign. They send a token, and the server's name in the path.
- Browsers send the cookie of a session to the host name of this session.
"""

import hmac
import logging
from collections.abc import Iterator, Mapping
from functools import partial
from http import HTTPStatus

from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.claims import AuthError
from microjobs_orchestrator.local.gateway.header_fields import drop_headers
from microjobs_orchestrator.local.gateway.request_state import MLFLOW_HEADERS, MLFLOW_SERVICE, RequestState
from microjobs_orchestrator.local.gateway.streams import Input
from microjobs_orchestrator.local.identity import MLFLOW_PATH, format_arn
from microjobs_orchestrator.local.protocols.http import get_headers, get_target
from microjobs_orchestrator.local.protocols.protocol import get_protocol
from microjobs_orchestrator.local.resources.mlflow import registration
from microjobs_orchestrator.local.resources.mlflow.connector_finder import ConnectorFinder
from microjobs_orchestrator.local.resources.models import client
from microjobs_orchestrator.local.ui_sessions import HOST_PATTERN, UiSessions

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 600.0
"""Seconds for a whole response, also for the download of a large artifact."""
AUTH_PATH = "/auth"
COOKIE_NAME = "microjobs-mlflow"

PRIVATE_HEADERS = frozenset(
    {
        *("authorization", "cookie", "expect", "host", "origin", "referer", "content-length", "transfer-encoding"),
        *MLFLOW_HEADERS,
    }
)
"""Headers of a request that are not forwarded. Headers that begin with x-amz or sec- are not forwarded either."""

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
"""Headers of all responses to browsers. They allow inline styles and scripts, which MLflow's pages use, but no files
from other sites."""


class MlflowGateway:
    """Interceptors that forward requests to MLflow servers.

    Args:
        find_connector: returns a function that connects to the process of a server.
        sessions: the sessions of browsers.
        token: the token of clients that do not sign requests.
        region: the region in the ARNs of servers.
        register: receives the responses to requests that create versions of models.
    """

    def __init__(
        self,
        find_connector: ConnectorFinder,
        sessions: UiSessions,
        token: str,
        region: str,
        register: registration.Register,
    ) -> None:
        self._find_connector = find_connector
        self._register = register
        self._sessions = sessions
        self._authorization = f"Bearer {token}".encode()
        self._region = region

    def answer_signed_request(self, state: RequestState) -> Response | None:
        """Forward a request whose signature has been verified. It must cover the header with the server's ARN."""
        if state.service != MLFLOW_SERVICE:
            return None
        headers = get_headers(state.request)
        names = [name for name in MLFLOW_HEADERS if name in headers]
        if len(names) != 1 or names[0] not in state.claim.signed_headers:
            message = f"the request must have exactly one of the headers {', '.join(MLFLOW_HEADERS)}"
            raise AuthError("signature", f"{message}, and this header must be signed")
        path, query = get_target(state.request)
        return self._forward(state, headers[names[0]], path, query, state.request.get_data() or None)

    def answer_request_with_token(self, state: RequestState) -> Response | None:
        """Forward a request whose path is below `MLFLOW_PATH`. Refuse it if it does not have the token."""
        request = state.request
        path, query = get_target(request)
        if not f"{path}/".startswith(f"{MLFLOW_PATH}/"):
            return None
        state.protocol = get_protocol("json")
        if not hmac.compare_digest(request.headers.get("Authorization", "").encode(), self._authorization):
            remedy = "`microjobs local env --mlflow NAME` prints MLFLOW_TRACKING_URI and MLFLOW_TRACKING_TOKEN"
            raise ServiceError("AccessDeniedException", f"the token is missing or wrong: {remedy}", 401)
        kind, _, name_and_path = path.removeprefix(f"{MLFLOW_PATH}/").partition("/")
        name, _, relative_path = name_and_path.partition("/")
        arn = format_arn(f"{kind}/{name}", self._region)
        return self._forward(state, arn, f"/{relative_path}", query, _stream_body(request))

    def answer_page(self, state: RequestState) -> Response | None:
        """Answer a request to a session's host name: open the session, or forward the request."""
        request = state.request
        host = HOST_PATTERN.fullmatch(get_headers(request).get("host", ""))
        if host is None or host["program"] != "mlflow":
            return None
        state.protocol, state.headers = get_protocol("json"), PAGE_HEADERS
        try:
            return self._answer_page(state, host["label"])
        except ServiceError as error:  # browsers show text, and download JSON of AWS's media type
            return Response(f"{error.message}\n", error.status, content_type="text/plain; charset=utf-8")

    def _answer_page(self, state: RequestState, label: str) -> Response:
        request = state.request
        _check_origin(request)
        if request.path == AUTH_PATH and request.method == "GET":
            return self._open_session(request, label)
        arn = self._sessions.find(label, request.cookies.get(COOKIE_NAME, ""))
        return self._forward(state, arn, *get_target(request), _stream_body(request))

    def _open_session(self, request: Request, label: str) -> Response:
        cookie, seconds = self._sessions.open(label, request.args.get("authToken", ""))
        response = Response(status=303, headers={"Location": "/", "Cache-Control": "no-store"})
        response.set_cookie(COOKIE_NAME, cookie, max_age=int(seconds), httponly=True, samesite="Lax")
        return response

    def _forward(self, state: RequestState, arn: str, path: str, query: str, body: client.Body) -> Response:
        request, connection = state.request, client.Client(self._find_connector(arn))
        target = f"{path}?{query}" if query else path
        method = "GET" if request.method == "HEAD" else request.method
        headers = _select_headers(request, is_stream=callable(body))
        try:
            server_response = connection.open(method, target, body, headers, timeout=TIMEOUT_SECONDS)
        except client.NoResponseError as error:
            connection.close()
            raise ServiceError("ServiceUnavailable", f"{arn} does not answer: {error}", 503) from error
        except ValueError as error:
            connection.close()
            raise ServiceError("ValidationException", f"the request cannot be forwarded: {error}") from error
        response = _make_response(server_response, connection, arn)
        if path.endswith(registration.MODEL_VERSIONS_PATH) and server_response.status == HTTPStatus.OK:
            self._register(arn, response.get_data())  # a small response: the description of the version
        return response


def _check_origin(request: Request) -> None:
    """Refuse requests from pages of other origins. A link on such a page may still open a page of this host.

    Raises:
        ServiceError: a page of another origin has sent the request.
    """
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "same-origin")
    is_link = request.method == "GET" and request.headers.get("Sec-Fetch-Mode") == "navigate"
    if origin not in (None, f"http://{request.headers['Host']}"):
        raise ServiceError("AccessDeniedException", f"requests from pages of {origin!r:.200} are refused", 403)
    if site not in ("same-origin", "none") and not is_link:
        raise ServiceError("AccessDeniedException", "requests from other pages are refused", 403)


def _stream_body(request: Request) -> client.Body:
    """Return the body as a function that reads it in blocks while it is forwarded; None if the request has no body."""
    if not (request.content_length or "Transfer-Encoding" in request.headers):
        return None
    return lambda: iter(partial(Input(request.environ["wsgi.input"]).read), b"")


def _select_headers(request: Request, *, is_stream: bool) -> dict[str, str]:
    public_headers = drop_headers(dict(request.headers), PRIVATE_HEADERS)
    headers = {name: value for name, value in public_headers.items() if not name.lower().startswith(("x-amz", "sec-"))}
    if is_stream and request.content_length:
        headers["Content-Length"] = str(request.content_length)
    return headers


def _make_response(server_response: client.Response, connection: client.Client, arn: str) -> Response:
    headers = drop_headers(server_response.headers, ("date", "server", "set-cookie"))
    response = Response(_read(server_response, arn), server_response.status, headers)
    if "content-type" not in headers:
        del response.headers["Content-Type"]  # werkzeug's default
    response.call_on_close(server_response.close)
    response.call_on_close(connection.close)
    return response


def _read(response: client.Response, arn: str) -> Iterator[bytes]:
    try:
        yield from response.read_chunks()
    except client.NoResponseError as error:  # the client sees that the body is incomplete
        logger.warning("the response of %s is incomplete: %s", arn, error)
        raise ConnectionAbortedError(str(error)) from error
