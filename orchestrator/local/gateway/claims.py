"""Claims. A claim states who signed a request, according to the request itself. The module `signatures` verifies it.

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

SCOPE_PATTERN = re.compile(r"(?P<key>[^/]+)/(?P<date>[0-9]{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")
"""Matches the access key, and the scope of a signature: the date, region and service for which it is valid."""

_AUTHORIZATION_PATTERN = re.compile(rf"{ALGORITHM} Credential=([^, ]+), ?SignedHeaders=([^, ]+), ?Signature=([^, ]+)")
"""Matches the usual form of a signature in a header."""

TIMESTAMP_PATTERN = re.compile("[0-9]{8}T[0-9]{6}Z")

Fault = Literal["missing", "malformed", "key", "token", "signature", "time", "expired", "expired-token", "payload"]
"""Reasons why a request cannot be authenticated. `expired` is an expired presigned address, and `expired-token` an
expired session token."""


class FaultCodes(NamedTuple):
    """Error codes for one fault, by the style of the protocol."""

    json: str
    query: str
    s3: str


FAULT_CODES: Mapping[Fault, FaultCodes] = {
    "missing": FaultCodes("MissingAuthenticationTokenException", "MissingAuthenticationToken", "AccessDenied"),
    "malformed": FaultCodes("IncompleteSignatureException", "IncompleteSignature", "AuthorizationHeaderMalformed"),
    "key": FaultCodes("UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId"),
    "token": FaultCodes("UnrecognizedClientException", "InvalidClientTokenId", "InvalidToken"),
    "signature": FaultCodes("InvalidSignatureException", "SignatureDoesNotMatch", "SignatureDoesNotMatch"),
    "time": FaultCodes("RequestTimeTooSkewed", "RequestTimeTooSkewed", "RequestTimeTooSkewed"),
    "expired": FaultCodes("ExpiredTokenException", "ExpiredToken", "AccessDenied"),
    "expired-token": FaultCodes("ExpiredTokenException", "ExpiredToken", "ExpiredToken"),
    "payload": FaultCodes("InvalidSignatureException", "SignatureDoesNotMatch", "XAmzContentSHA256Mismatch"),
}


class AuthError(Exception):
    """A request cannot be authenticated."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault

    def to_service_error(self, style: ErrorStyle) -> ServiceError:
        return ServiceError(getattr(FAULT_CODES[self.fault], style), str(self), 403)


@dataclass
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
    lifetime: timedelta | None = None
    """Lifetime of an address that is presigned with version 4; None for version 2, and for a signature in a header."""
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
    """Refuse a second signature: the server could verify one signature and use the parameters of the other."""
    if not request.query_string:
        return
    names = [name.lower() for name, _ in request.args.items(multi=True)]
    presigned = [name for name in names if name.startswith("x-amz-") or name in V2_PARAMETERS]
    if has_header and not {"x-amz-signature", "signature"}.isdisjoint(presigned):
        raise AuthError("malformed", "the request has an Authorization header and a presigned address; send only one")
    if repeated := {name for name in presigned if presigned.count(name) > 1}:
        raise AuthError("malformed", f"the address repeats parameters: {', '.join(sorted(repeated))}; send each once")


def _read_header(request: Request, header: str) -> Claim:
    headers = get_headers(request)
    date = headers.get("x-amz-date") or headers.get("date", "")
    if match := _AUTHORIZATION_PATTERN.fullmatch(header):
        return _make_claim(match[1], match[2], match[3], date)
    algorithm, _, parameters = header.partition(" ")
    parts = dict([part.strip().partition("=")[::2] for part in parameters.split(",")])
    return _read_v4({**parts, "Algorithm": algorithm, "Date": date})


def _read_presigned(request: Request) -> Claim:
    seconds = request.args.get("X-Amz-Expires", "")
    if not re.fullmatch("[0-9]{1,6}", seconds):
        raise AuthError("malformed", f"X-Amz-Expires of the presigned address is {seconds!r}, not a number of seconds")
    prefix = "X-Amz-"
    parts = {name.removeprefix(prefix): value for name, value in request.args.items() if name.startswith(prefix)}
    return _read_v4(parts, timedelta(seconds=int(seconds)))


def _read_v4(parts: Mapping[str, str], lifetime: timedelta | None = None) -> Claim:
    credential, names, signature = (parts.get(name, "") for name in ("Credential", "SignedHeaders", "Signature"))
    algorithm = parts.get("Algorithm", "")
    if algorithm != ALGORITHM or not names or not signature:
        raise _make_incomplete_error(algorithm)
    return _make_claim(credential, names, signature, parts.get("Date", ""), lifetime)


def _make_claim(
    credential: str, signed_headers: str, signature: str, date: str, lifetime: timedelta | None = None
) -> Claim:
    if (scope := _match_scope(credential)) is None:
        raise _make_incomplete_error(ALGORITHM)
    key, _, region, service = scope.groups()
    return Claim(key, region, service, parse_timestamp(date), tuple(signed_headers.split(";")), signature, lifetime)


@lru_cache(maxsize=64)
def _match_scope(credential: str) -> re.Match[str] | None:
    return SCOPE_PATTERN.fullmatch(credential)


def _make_incomplete_error(algorithm: str) -> AuthError:
    message = f"the request has no complete signature of version 4; its algorithm is {algorithm[:40]!r}"
    return AuthError("malformed", message)


def _read_presigned_v2(request: Request) -> Claim:
    """Read a signature of version 2: boto3 presigns with it by default, and S3 in us-east-1 still accepts it."""
    key, expiry, signature = (request.args.get(name, "") for name in ("AWSAccessKeyId", "Expires", "Signature"))
    if not re.fullmatch("[0-9]{1,11}", expiry):
        raise AuthError("malformed", f"Expires of the presigned address is {expiry!r}, not seconds since 1970")
    return Claim(
        access_key_id=key,
        region="",
        service="s3",
        timestamp=expiry,
        signed_headers=(),
        signature=signature,
        version=2,
    )


@lru_cache(maxsize=64)
def parse_timestamp(text: str) -> str:
    """Return a date in the form of `X-Amz-Date`, such as `20260131T235959Z`. Signatures use this form.

    The text has this form or the form of a `Date` header.

    Raises:
        AuthError: the text is not a date.
    """
    try:
        if not TIMESTAMP_PATTERN.fullmatch(text):
            text = parsedate_to_datetime(text).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:  # such as years before 1000 and after 9999
        raise AuthError("malformed", f"the date is {text!r}; X-Amz-Date must be like 20260131T235959Z") from error
    return text
