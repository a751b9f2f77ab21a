"""A sender of requests that the test builds itself, so that they can have errors that no client library makes."""

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from microjobs_orchestrator.local.control import Address

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    """The headers, with names in lower case."""
    body: bytes


class Sender:
    """Signs requests and sends them to one server, over a persistent connection."""

    def __init__(self, address: Address) -> None:
        self.host = urlsplit(address.url).netloc
        self.credentials = Credentials(address.access_key_id, address.secret_access_key)
        self._connection = http.client.HTTPConnection(self.host, timeout=TIMEOUT_SECONDS)

    def close(self) -> None:
        self._connection.close()

    def send_raw(self, method: str, target: str, headers: Mapping[str, Any], body: bytes | None = None) -> Response:
        """Send only these headers, and Host and Content-Length if they are missing."""
        connection = self._connection
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        all_headers = {"Host": self.host, **headers}
        if body is not None and not {"Transfer-Encoding", "Content-Length"} & all_headers.keys():
            all_headers["Content-Length"] = str(len(body))
        for name, value in all_headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        content = response.read()
        return Response(response.status, {name.lower(): value for name, value in response.getheaders()}, content)

    def send_signed(
        self,
        service: str,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        **options: Any,
    ) -> Response:
        """Send a signed request. `options` are arguments of `sign`."""
        return self.send_raw(method, target, self.sign(service, method, target, headers, body, **options), body)

    def sign(
        self,
        service: str,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        signing_time: datetime | None = None,
        payload: str | None = None,
        credentials: Credentials | None = None,
    ) -> dict[str, str]:
        """Return the headers of a signed request.

        Args:
            signing_time: the time that the signature states; default: now.
            payload: the value of X-Amz-Content-SHA256, in place of the body's SHA-256. Only S3 uses it.
            credentials: sign with these credentials instead of the server's.
        """
        request = AWSRequest(method, f"http://{self.host}{target}", {"Host": self.host, **(headers or {})}, body or b"")
        signer = (Signer if service == "s3" else SigV4Auth)(credentials or self.credentials, service, "us-east-1")
        request.context["timestamp"] = f"{signing_time or datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        request.headers["X-Amz-Date"] = request.context["timestamp"]
        if service == "s3":
            request.headers["X-Amz-Content-SHA256"] = payload or SigV4Auth.payload(signer, request)
        names = signer.signed_headers(signer.headers_to_sign(request))
        signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        scope = f"Credential={signer.scope(request)}, SignedHeaders={names}"
        return {**request.headers, "Authorization": f"AWS4-HMAC-SHA256 {scope}, Signature={signature}"}


class Signer(S3SigV4Auth):
    """Signer that uses the SHA-256 in the header of the request, which may differ from the SHA-256 of the body."""

    def payload(self, request: AWSRequest) -> str:
        hash_header: str | None = request.headers.get("X-Amz-Content-SHA256")
        return hash_header or str(SigV4Auth.payload(self, request))
