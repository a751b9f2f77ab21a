"""Claims: who signed a request, according to the request. `signatures` verifies them.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Literal, NamedTuple

from werkzeug import Request

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.http import get_headers
from microjobs_orchestrator.local.protocols.protocol import ErrorStyle

ALGORITHM = "AWS4-HMAC-SHA256"
REMEDY = 'use this server\'s credentials: eval "$(microjobs local env)"'

V2_PARAMETERS = frozenset({"awsaccesskeyid", "signature"})
"""Parameters of signatures of version 2, in lower case."""

SCOPE = re.compile(r"(?P<key>[^/]+)/(?P<date>[0-9]{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")

TIMESTAMP = re.compile("[0-9]{8}T[0-9]{6}Z")

Fault = Literal["missing", "malformed", "key", "token", "signature", "time", "expired", "session", "payload"]


class Codes(NamedTuple):
    """Error codes for one fault, by the style of the protocol."""

    json: str
    query: str
    s3: str


CODES: Mapping[Fault, Codes] = {
    "missing": Codes("MissingAuthenticationTokenException", "MissingAuthenticationToken", "AccessDenied"),
    "malformed": Codes("IncompleteSignatureException", "IncompleteSignature", "AuthorizationHeaderMalformed"),
    "key": Codes("UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId"),
    "token": Codes("UnrecognizedClientException", "InvalidClientTokenId", "InvalidToken"),
    "signature": Codes("InvalidSignatureException", "SignatureDoesNotMatch", "SignatureDoesNotMatch"),
    "time": Codes("RequestTimeTooSkewed", "RequestTimeTooSkewed", "RequestTimeTooSkewed"),
    "expired": Codes("ExpiredTokenException", "ExpiredToken", "AccessDenied"),
    "session": Codes("ExpiredTokenException", "ExpiredToken", "ExpiredToken"),
    "payload": Codes("InvalidSignatureException", "SignatureDoesNotMatch", "XAmzContentSHA256Mismatch"),
}


class AuthError(Exception):
    """A request cannot be authenticated."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault

    def to_service_error(self, style: ErrorStyle) -> ServiceError:
        return ServiceError(getattr(CODES[self.fault], style), str(self), 403)


@dataclass(frozen=True)
class Claim:
    """A signature, before it is verified."""

    access_key_id: str
    region: str
    service: str
    """Name in the scope: `sagemaker` for SageMaker Runtime, too."""
    timestamp: str
    """For version 4, the time of the signature, such as `20260131T235959Z`; for version 2, the time at which the
    presigned address expires, in seconds since 1970."""
    signed_headers: tuple[str, ...]
    signature: str
    expires: timedelta | None = None
    """Lifetime of a presigned address; None if the signature is in a header."""
    version: Literal[2, 4] = 4


def read_claim(request: Request) -> Claim:
    """Read a request's signature, from its header or its presigned address.

    Raises:
        AuthError: the request has no signature or several, or the signature is malformed.
    """
    header = get_headers(request).get("authorization", "")
    _check_parameters(request, has_header=bool(header))
    if header:
        return _read_header(request, header)
    if "X-Amz-Signature" in request.args:
        return _read_presigned(request)
    if "AWSAccessKeyId" in request.args:
        return _read_presigned_v2(request)
    raise AuthError("missing", f"the request is not signed; {REMEDY}")


def _check_parameters(request: Request, *, has_header: bool) -> None:
    """Refuse a second signature: the server could verify one of them and use the other."""
    if not request.query_string:
        return
    names = [name.lower() for name, _ in request.args.items(multi=True)]
    presigned = [name for name in names if name.startswith("x-amz-") or name in V2_PARAMETERS]
    if has_header and not {"x-amz-signature", "signature"}.isdisjoint(presigned):
        raise AuthError("malformed", "the request has an Authorization header and a presigned address; send only one")
    if repeated := {name for name in presigned if presigned.count(name) > 1}:
        raise AuthError("malformed", f"the address repeats parameters: {', '.join(sorted(repeated))}; send each once")


def _read_header(request: Request, header: str) -> Claim:
    algorithm, _, rest = header.partition(" ")
    parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    headers = get_headers(request)
    date = headers.get("x-amz-date") or headers.get("date", "")
    return _read_v4({**parts, "Algorithm": algorithm, "Date": date})


def _read_presigned(request: Request) -> Claim:
    seconds = request.args.get("X-Amz-Expires", "")
    if not re.fullmatch("[0-9]{1,6}", seconds):
        raise AuthError("malformed", f"X-Amz-Expires of the presigned address is {seconds!r}, not a number of seconds")
    prefix = "X-Amz-"
    parts = {name.removeprefix(prefix): value for name, value in request.args.items() if name.startswith(prefix)}
    return _read_v4(parts, timedelta(seconds=int(seconds)))


def _read_v4(parts: Mapping[str, str], expires: timedelta | None = None) -> Claim:
    scope, algorithm = SCOPE.fullmatch(parts.get("Credential", "")), parts.get("Algorithm", "")
    if algorithm != ALGORITHM or scope is None or not parts.get("SignedHeaders") or not parts.get("Signature"):
        raise AuthError(
            "malformed", f"the request has no complete signature of version 4; its algorithm is {algorithm[:40]!r}"
        )
    headers, timestamp = tuple(parts["SignedHeaders"].split(";")), parse_timestamp(parts.get("Date", ""))
    return Claim(scope["key"], scope["region"], scope["service"], timestamp, headers, parts["Signature"], expires)


def _read_presigned_v2(request: Request) -> Claim:
    """Read a signature of version 2: boto3 presigns with it by default, and S3 in us-east-1 still accepts it."""
    key, expiry, signature = (request.args.get(name, "") for name in ("AWSAccessKeyId", "Expires", "Signature"))
    if not re.fullmatch("[0-9]{1,11}", expiry):
        raise AuthError("malformed", f"Expires of the presigned address is {expiry!r}, not seconds since 1970")
    return Claim(key, "", "s3", expiry, (), signature, version=2)


@lru_cache(maxsize=64)
def parse_timestamp(text: str) -> str:
    """Return a date in the form of `X-Amz-Date`, which is signed. The text has this form, or that of a `Date` header.

    Raises:
        AuthError: the text is not a date.
    """
    try:
        if not TIMESTAMP.fullmatch(text):
            text = parsedate_to_datetime(text).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:  # also years before 1000 and after 9999
        raise AuthError("malformed", f"the date is {text!r}; X-Amz-Date must be like 20260131T235959Z") from error
    return text
