"""Requests for services that another emulator answers: `[local.services]` in `microjobs.toml`.

Only authenticated requests are forwarded. They are signed again with dummy credentials, so that the emulator never
receives a signature that this server would accept.
"""

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import requests
from botocore import credentials as botocore_credentials
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import UnknownServiceError
from urllib3.exceptions import HTTPError
from werkzeug import Request, Response

from microjobs_orchestrator.local.config import ConfigError
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.exchange import Exchange
from microjobs_orchestrator.local.parity.table import TABLE
from microjobs_orchestrator.local.protocols.models import service_model, signing_name

CONNECT_TIMEOUT = 5.0
RESPONSE_TIMEOUT = 60.0
MAX_RESPONSE_BYTES = 64 << 20
BLOCK_BYTES = 64 << 10

ALL_OTHERS = "*"
"""Key of the setting for all services without one of their own."""

DUMMY = botocore_credentials.Credentials("test", "test")

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers about one connection."""

REPLACED_HEADERS = frozenset(
    {"authorization", "host", "content-length", "expect", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"}
)
"""Headers that the new signature replaces."""


class Forwarder:
    """Sends requests to other emulators.

    Args:
        services: addresses by botocore's names of services; `*` stands for all others.

    Raises:
        ConfigError: botocore has no such service, or this server has it.
    """

    def __init__(self, services: Mapping[str, str]) -> None:
        own = {signing_name(service) for service in TABLE}
        self._names: dict[str, str] = {}
        self._urls: dict[str, str] = {}
        self._default_url = services.get(ALL_OTHERS)
        for name, url in services.items():
            if name != ALL_OTHERS:
                signed = _check_service(name, own)
                self._names[signed], self._urls[signed] = name, url
        self._own = own

    def find_url(self, service: str) -> str | None:
        """Return the address of the emulator for a signing name; None if this server answers, or nothing does."""
        return None if service in self._own else self._urls.get(service, self._default_url)

    def find_protocol(self, service: str) -> str | None:
        """Return the protocol of a signing name; None if the settings do not name the service."""
        name = self._names.get(service)
        return str(service_model(name).metadata["protocol"]) if name else None

    def forward(self, exchange: Exchange) -> Response | None:
        """Intercept an authenticated request for another emulator, and return the emulator's response.

        Raises:
            ServiceError: the emulator does not respond, or the response is too large.
        """
        if exchange.service:
            return None
        return self.send(exchange.request, exchange.claim.service, exchange.claim.region)

    def send(self, request: Request, service: str, region: str) -> Response:
        base = self.find_url(service) or ""
        sent = _sign_again(request, base, service, region)
        try:
            with requests.Session() as session:
                session.trust_env = False  # no proxy: the user has set the address
                answer = session.send(
                    requests.Request(sent.method, sent.url, dict(sent.headers), data=sent.body).prepare(),
                    stream=True,
                    timeout=(CONNECT_TIMEOUT, RESPONSE_TIMEOUT),
                    allow_redirects=False,
                )
                return _convert_response(answer, service, base)
        except (requests.RequestException, HTTPError) as error:
            message = f"{base}, which answers for {service} by [local.services], does not answer: {error}"
            raise ServiceError("ServiceUnavailable", f"{message}. Start it, or remove the setting.", 503) from error


def _check_service(name: str, own: set[str]) -> str:
    try:
        signed = signing_name(name)
    except UnknownServiceError as error:
        message = f"[local.services] has {name!r}, which is not a service: use boto3's names, such as secretsmanager"
        raise ConfigError(message) from error
    if signed in own:
        raise ConfigError(
            f"[local.services] has {name!r}, but requests for {signed} are answered by this server itself"
        )
    return signed


def _sign_again(request: Request, base: str, service: str, region: str) -> AWSRequest:
    path, _, query = str(request.environ["REQUEST_URI"]).partition("?")
    if not path.startswith("/"):  # the absolute form of a request's target
        path = urlsplit(path).path or "/"
    kept = "&".join(part for part in query.split("&") if not part.startswith("X-Amz-"))
    url = f"{base.rstrip('/')}{path}{'?' if kept else ''}{kept}"
    dropped = HOP_BY_HOP | REPLACED_HEADERS | _parse_connection(request.headers.get("Connection", ""))
    headers = {name: value for name, value in request.headers.items() if name.lower() not in dropped}
    signed = AWSRequest(method=request.method, url=url, data=request.get_data(), headers=headers)
    SigV4Auth(DUMMY, service, region).add_auth(signed)
    return signed


def _parse_connection(header: str) -> set[str]:
    return {name.strip().lower() for name in header.split(",")}


def _convert_response(answer: requests.Response, service: str, base: str) -> Response:
    content = b"".join(_read_blocks(answer, service, base))
    dropped = (
        HOP_BY_HOP | {"content-length", "date", "server"} | _parse_connection(answer.headers.get("Connection", ""))
    )
    headers = [(name, value) for name, value in answer.headers.items() if name.lower() not in dropped]
    response = Response(content, answer.status_code)
    response.headers.clear()
    response.headers.extend(headers)
    response.headers["Content-Length"] = str(len(content))
    return response


def _read_blocks(answer: requests.Response, service: str, base: str) -> Iterator[bytes]:
    """Yield the content of a response as it is sent, up to the limit."""
    size = 0
    while block := answer.raw.read(BLOCK_BYTES, decode_content=False):
        size += len(block)
        if size > MAX_RESPONSE_BYTES:
            message = f"{base} answered for {service} with more than {MAX_RESPONSE_BYTES} bytes"
            raise ServiceError("ServiceUnavailable", message, 502)
        yield block
