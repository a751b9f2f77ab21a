"""Claims: who signed a request, as the request states it. `signatures` verifies them.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Literal

from werkzeug import Request

from microjobs_orchestrator.local.gateway.auth_errors import REMEDY, AuthError

ALGORITHM = "AWS4-HMAC-SHA256"

V2_PARAMETERS = frozenset({"awsaccesskeyid", "signature"})
"""Parameters of signatures of version 2, in lower case."""

SCOPE = re.compile(r"(?P<key>[^/]+)/(?P<date>[0-9]{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")

TIMESTAMP = re.compile("[0-9]{8}T[0-9]{6}Z")


@dataclass(frozen=True)
class Claim:
    """A signature, before it is verified."""

    access_key_id: str
    region: str
    service: str
    """Name in the scope: `sagemaker` for SageMaker Runtime, too."""
    timestamp: str
    """Such as `20260131T235959Z`; of version 2, seconds since 1970 at which the address expires."""
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
    header = request.headers.get("Authorization", "")
    _check_parameters(request, has_header=bool(header))
    if header:
        return _read_header(request, header)
    if "X-Amz-Signature" in request.args:
        return _read_presigned(request)
    if "AWSAccessKeyId" in request.args:
        return _read_presigned_v2(request)
    raise AuthError("missing", f"the request is not signed; {REMEDY}")


def _check_parameters(request: Request, *, has_header: bool) -> None:
    """Refuse two signatures in one request: the verified one could differ from the one that is used."""
    names = [name.lower() for name in request.args for _ in request.args.getlist(name)]
    presigned = [name for name in names if name.startswith("x-amz-") or name in V2_PARAMETERS]
    if has_header and not {"x-amz-signature", "signature"}.isdisjoint(presigned):
        raise AuthError("malformed", "the request has an Authorization header and is presigned, too; send one of them")
    if repeated := {name for name in presigned if presigned.count(name) > 1}:
        raise AuthError("malformed", f"parameters of the address came more than once: {', '.join(sorted(repeated))}")


def _read_header(request: Request, header: str) -> Claim:
    algorithm, _, rest = header.partition(" ")
    parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    scope = SCOPE.fullmatch(parts.get("Credential", ""))
    if algorithm != ALGORITHM or scope is None or not parts.get("SignedHeaders") or not parts.get("Signature"):
        raise AuthError("malformed", f"Authorization is not of signature version 4: {algorithm[:40]!r} …")
    timestamp = parse_timestamp(request.headers.get("X-Amz-Date") or request.headers.get("Date", ""))
    headers = tuple(parts["SignedHeaders"].split(";"))
    return Claim(scope["key"], scope["region"], scope["service"], timestamp, headers, parts["Signature"])


def _read_presigned(request: Request) -> Claim:
    parameters = request.args
    scope = SCOPE.fullmatch(parameters.get("X-Amz-Credential", ""))
    seconds = parameters.get("X-Amz-Expires", "")
    is_valid = parameters.get("X-Amz-Algorithm") == ALGORITHM and re.fullmatch("[0-9]{1,6}", seconds)
    if scope is None or not is_valid:
        raise AuthError("malformed", "the presigned address is not of signature version 4, or lacks X-Amz-Expires")
    return Claim(
        scope["key"],
        scope["region"],
        scope["service"],
        parse_timestamp(parameters.get("X-Amz-Date", "")),
        tuple(parameters.get("X-Amz-SignedHeaders", "").split(";")),
        parameters["X-Amz-Signature"],
        timedelta(seconds=int(seconds)),
    )


def _read_presigned_v2(request: Request) -> Claim:
    """Read a signature of version 2: boto3 presigns with it by default, and S3 in us-east-1 still accepts it."""
    key, expiry, signature = (request.args.get(name, "") for name in ("AWSAccessKeyId", "Expires", "Signature"))
    if not re.fullmatch("[0-9]{1,11}", expiry):
        raise AuthError("malformed", f"Expires of the presigned address is {expiry!r}, not seconds since 1970")
    return Claim(key, "", "s3", expiry, (), signature, version=2)


def parse_timestamp(text: str) -> str:
    """Return a date in the form that is signed, from that form or from a `Date` header.

    Raises:
        AuthError: the text is not a date.
    """
    try:
        if not TIMESTAMP.fullmatch(text):
            text = parsedate_to_datetime(text).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        parse_time(text)
    except (ValueError, OverflowError) as error:  # years before 1000 and after 9999, too
        message = f"the request's date is {text!r}: X-Amz-Date must be as 20260131T235959Z"
        raise AuthError("malformed", message) from error
    return text


def parse_time(timestamp: str) -> datetime:
    return datetime.strptime(timestamp, "%Y%m%dT%H%M%S%z")
