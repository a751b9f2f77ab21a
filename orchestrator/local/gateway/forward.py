"""Requests for services that another emulator answers: `[local.services]` in `microjobs.toml`.

Only authenticated requests are forwarded. They are signed again with dummy credentials, so that the emulator never
receives a signature that this server would accept.
"""

from collections.abc import Mapping
from functools import partial

import requests
from botocore import credentials as botocore_credentials
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import UnknownServiceError
from urllib3.exceptions import HTTPError
from werkzeug import Response

from microjobs_orchestrator.local.config import ConfigError
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.header_fields import drop_headers
from microjobs_orchestrator.local.gateway.request_state import RequestState
from microjobs_orchestrator.local.parity.table import TABLE
from microjobs_orchestrator.local.protocols.http import get_target
from microjobs_orchestrator.local.protocols.models import get_signing_name
from microjobs_orchestrator.local.tasks import call_in_thread

CONNECT_TIMEOUT = 5.0
RESPONSE_TIMEOUT = 60.0
"""Seconds for the connection to an emulator, and between two parts of its response."""
MAX_RESPONSE_BYTES = 64 << 20
BLOCK_BYTES = 1 << 20

ALL_OTHER_SERVICES = "*"
"""Key of the setting for all services that no other key names."""

DUMMY_CREDENTIALS = botocore_credentials.Credentials("test", "test")

REPLACED_HEADERS = frozenset(
    {
        *("authorization", "host", "content-length", "expect"),
        *("x-amz-date", "x-amz-security-token", "x-amz-content-sha256"),
    }
)
"""Headers that the new signature or the new connection replaces."""


class Forwarder:
    """Sends requests to other emulators.

    Args:
        services: addresses of emulators, by botocore's names of services; `*` stands for all other services.

    Raises:
        ConfigError: botocore does not know a service, or this server has the service itself.
    """

    def __init__(self, services: Mapping[str, str]) -> None:
        self._own_services = {get_signing_name(service) for service in TABLE}
        self._default_url = services.get(ALL_OTHER_SERVICES)
        self._names_by_signing_name = {
            _read_signing_name(name, self._own_services): name for name in services if name != ALL_OTHER_SERVICES
        }
        self._urls_by_signing_name = {
            signing_name: services[name] for signing_name, name in self._names_by_signing_name.items()
        }

    def find_url(self, signing_name: str) -> str | None:
        """Return the address of the emulator for a signing name; None if there is no emulator."""
        if signing_name in self._own_services:
            return None
        return self._urls_by_signing_name.get(signing_name, self._default_url)

    def find_name(self, signing_name: str) -> str | None:
        """Return botocore's name of the service with a signing name; None if the settings do not name the service."""
        return self._names_by_signing_name.get(signing_name)

    def forward(self, state: RequestState) -> Response | None:
        """Intercept an authenticated request for another emulator, and return the emulator's response.

        Raises:
            ServiceError: the emulator does not respond, or the response is too large.
        """
        return None if state.service else call_in_thread(partial(self._request, state))

    def _request(self, state: RequestState) -> Response:
        emulator_url = self.find_url(state.claim.service) or ""
        signed_request = _sign(state, emulator_url)
        method, url, headers = signed_request.method, signed_request.url, dict(signed_request.headers)
        prepared_request = requests.Request(method, url, headers, data=signed_request.body).prepare()
        try:
            with requests.Session() as session:
                session.trust_env = False  # no proxy: the user has set the address
                timeout = (CONNECT_TIMEOUT, RESPONSE_TIMEOUT)
                response = session.send(prepared_request, stream=True, timeout=timeout, allow_redirects=False)
                return _convert_response(response)
        except (requests.RequestException, HTTPError) as error:
            name = self.find_name(state.claim.service) or ALL_OTHER_SERVICES
            message = f"{emulator_url}, the emulator for {name} in [local.services], does not respond: {error}"
            raise ServiceError("ServiceUnavailable", f"{message}. Start it, or remove the setting.", 503) from error


def _read_signing_name(name: str, own_services: set[str]) -> str:
    """Return the signing name of a service in the settings. Raise ConfigError if the service is unknown, or if this
    server has the service itself."""
    try:
        signing_name = get_signing_name(name)
    except UnknownServiceError as error:
        message = f"[local.services] has {name!r}, which is not a service: use boto3's names, such as secretsmanager"
        raise ConfigError(message) from error
    if signing_name in own_services:
        raise ConfigError(
            f"[local.services] has {name!r}, but this server itself answers for {signing_name}: remove the line"
        )
    return signing_name


def _sign(state: RequestState, emulator_url: str) -> AWSRequest:
    request, claim = state.request, state.claim
    path, query = get_target(request)
    unsigned_query = "&".join(part for part in query.split("&") if not part.startswith("X-Amz-"))
    url = f"{emulator_url.rstrip('/')}{path}{'?' if unsigned_query else ''}{unsigned_query}"
    headers = drop_headers(dict(request.headers), REPLACED_HEADERS)
    signed_request = AWSRequest(method=request.method, url=url, data=request.get_data(), headers=headers)
    SigV4Auth(DUMMY_CREDENTIALS, claim.service, claim.region).add_auth(signed_request)
    return signed_request


def _convert_response(response: requests.Response) -> Response:
    content = bytearray()
    for block in iter(partial(response.raw.read, BLOCK_BYTES, decode_content=False), b""):
        content += block
        if len(content) > MAX_RESPONSE_BYTES:
            message = f"{response.url} answered with more than {MAX_RESPONSE_BYTES} bytes"
            raise ServiceError("ServiceUnavailable", message, 502)
    headers = drop_headers(response.headers, {"content-length", "date", "server"})
    result = Response(bytes(content), response.status_code, headers)
    if "Content-Type" not in response.headers:
        del result.headers["Content-Type"]  # werkzeug's default
    return result
