"""Signatures of version 4: they prove the sender of a request, and that the request was not changed.

Botocore signs the received request with the server's secret key; the result must be the received signature.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from botocore import credentials as botocore_credentials
from botocore.auth import HmacV1PostAuth, S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from werkzeug import Request

from microjobs_orchestrator.local import sessions
from microjobs_orchestrator.local.gateway.auth_errors import REMEDY, AuthError
from microjobs_orchestrator.local.gateway.claims import ALGORITHM, SCOPE, Claim, parse_time, parse_timestamp
from microjobs_orchestrator.local.gateway.signatures_v2 import sign_v2
from microjobs_orchestrator.local.identity import Credentials
from microjobs_orchestrator.local.protocols.http import get_headers

MAX_SKEW = timedelta(minutes=15)
MAX_LIFETIME = timedelta(days=7)
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"

UNSIGNED_HEADERS = frozenset({"x-amzn-trace-id"})
"""Headers that need no signature: proxies add them to signed requests, and SDKs do not sign them."""


@dataclass(frozen=True)
class Proof:
    """A verified signature. The chunks of a body may have signatures that continue it."""

    signature: str
    timestamp: str
    scope: str
    sign: Callable[[str], str]
    """Returns the signature of a text, with the key of this date, region and service."""


def verify(
    request: Request,
    claim: Claim,
    home_credentials: Credentials,
    digest: Callable[[], str],
    now: datetime | None = None,
) -> Proof | None:
    """Verify that the holder of the credentials signed this request, and set the caller. The body is read last, if at
    all: S3 verifies it while it reads it.

    Args:
        digest: reads the body; returns its SHA-256 in hexadecimal digits.

    Returns:
        The verified signature; None for one of version 2, which nothing can continue.

    Raises:
        AuthError: the request was signed with other credentials or too long ago, or was changed.
    """
    now = now or datetime.now(UTC)
    credentials = _identify(claim.access_key_id, _session_token(request), home_credentials, now)
    if claim.version == 2:
        _check_expiry_v2(claim, now)
        _compare(claim.signature, sign_v2(request, claim, credentials))
        return None
    _check_time(claim, now)
    _check_signed_headers(request, claim)
    return _verify_v4(request, claim, credentials, digest)


def _verify_v4(request: Request, claim: Claim, credentials: Credentials, digest: Callable[[], str]) -> Proof:
    signer = (_S3Signer if claim.service == "s3" else _Signer)(_for_botocore(credentials), claim.service, claim.region)
    payload = _payload_hash(request, claim)
    signed = _rebuild(request, claim, payload or digest())
    expected = signer.signature(signer.string_to_sign(signed, signer.canonical_request(signed)), signed)
    _compare(claim.signature, expected)
    if payload and claim.service != "s3" and payload != digest():
        raise AuthError("payload", f"the body's SHA-256 is {digest()}, and x-amz-content-sha256 says {payload}")
    scope = signer.credential_scope(signed)
    return Proof(expected, claim.timestamp, scope, lambda text: signer.signature(text, signed))


def verify_form(form: Mapping[str, str], home_credentials: Credentials, now: datetime | None = None) -> None:
    """Verify the signature of an upload form's policy, and set the caller.

    Args:
        form: the form's fields by their names in lower case.

    Raises:
        AuthError: the policy has no signature, or was signed with other credentials.
    """
    now = now or datetime.now(UTC)
    token, policy = form.get("x-amz-security-token"), form.get("policy", "")
    if "awsaccesskeyid" in form:
        credentials = _identify(form["awsaccesskeyid"], token, home_credentials, now)
        expected = HmacV1PostAuth(_for_botocore(credentials)).sign_string(policy)
        signature = form.get("signature", "")
    elif scope := SCOPE.fullmatch(form.get("x-amz-credential", "")):
        credentials = _identify(scope["key"], token, home_credentials, now)
        expected = _sign_policy(form, scope, credentials, policy)
        signature = form.get("x-amz-signature", "")
    else:
        raise AuthError("missing", f"the form is not signed; {REMEDY}")
    _compare(signature, expected)


def _sign_policy(form: Mapping[str, str], scope: re.Match[str], credentials: Credentials, policy: str) -> str:
    timestamp = parse_timestamp(form.get("x-amz-date", ""))
    fits = scope["service"] == "s3" and timestamp.startswith(scope["date"])
    if form.get("x-amz-algorithm") != ALGORITHM or not fits:
        raise AuthError("malformed", "the form's x-amz-algorithm, x-amz-credential and x-amz-date do not fit")
    signed = AWSRequest()
    signed.context["timestamp"] = timestamp
    return str(_S3Signer(_for_botocore(credentials), "s3", scope["region"]).signature(policy, signed))


# --- credentials ---


def _identify(access_key_id: str, token: str | None, home_credentials: Credentials, now: datetime) -> Credentials:
    """Return the credentials that a request claims to be signed with, the home's or a session's; set the caller.

    Raises:
        AuthError: the access key is unknown, or the session token is not valid for it.
    """
    if token is None:
        if access_key_id != home_credentials.access_key_id:
            raise AuthError("key", f"access key {access_key_id} is not this server's; {REMEDY}")
        sessions.caller.set(sessions.OWNER)
        return home_credentials
    try:
        credentials, caller = sessions.parse_token(home_credentials, access_key_id, token, now.timestamp())
    except sessions.SessionExpiredError as error:
        raise AuthError("session", f"the session token expired at {error}: ask STS for a new one") from error
    except sessions.SessionError as error:
        message = f"the session token is not valid: {error}; unset AWS_SESSION_TOKEN, and {REMEDY}"
        raise AuthError("token", message) from error
    sessions.caller.set(caller)
    return credentials


def _session_token(request: Request) -> str | None:
    """Return the session token, from a header or a presigned address, where version 2 has it in lower case."""
    names = ("X-Amz-Security-Token", "x-amz-security-token")
    return request.headers.get(names[0]) or next((request.args[name] for name in names if name in request.args), None)


def _for_botocore(credentials: Credentials) -> botocore_credentials.Credentials:
    return botocore_credentials.Credentials(credentials.access_key_id, credentials.secret_access_key)


# --- checks ---


def _compare(signature: str, expected: str) -> None:
    if not hmac.compare_digest(expected.encode(), signature.encode()):
        raise AuthError("signature", f"the signature is not what this server's secret key gives; {REMEDY}")


def _check_expiry_v2(claim: Claim, now: datetime) -> None:
    if now.timestamp() > int(claim.timestamp):
        raise AuthError("expired", f"Request has expired: it was good until {claim.timestamp} seconds since 1970")


def _check_time(claim: Claim, now: datetime) -> None:
    signed = parse_time(claim.timestamp)
    if claim.expires is None:
        if abs(now - signed) > MAX_SKEW:
            raise AuthError("time", f"signed at {signed:%F %T}, and it is {now:%F %T} UTC: set the clock right")
    elif claim.expires > MAX_LIFETIME:
        raise AuthError("malformed", "X-Amz-Expires must be at most 604800 seconds, a week")
    elif signed - now > MAX_SKEW or now > signed + claim.expires:
        raise AuthError("expired", f"Request has expired: it was good for {claim.expires} from {signed:%F %T} UTC")


def _check_signed_headers(request: Request, claim: Claim) -> None:
    """Refuse Amazon's headers without a signature, as AWS does: anybody may have added them."""
    amazons = {name for name in get_headers(request) if name.startswith(("x-amz-", "x-amzn-"))}
    missing = ({"host"} | (amazons - UNSIGNED_HEADERS)) - set(claim.signed_headers)
    if missing:
        raise AuthError("signature", f"headers that must be signed are not: {', '.join(sorted(missing))}")


# --- what was signed ---


def _rebuild(request: Request, claim: Claim, payload: str) -> AWSRequest:
    """Return the request as the sender's botocore had it when it was signed."""
    # The path is used as it was sent: WSGI's own is decoded, and decoding `%2F` cannot be undone.
    path, _, query = request.environ["REQUEST_URI"].partition("?")
    kept = "&".join(part for part in query.split("&") if not part.startswith("X-Amz-Signature="))
    signed = AWSRequest(method=request.method, url=f"http://host{path}?{kept}")
    received = get_headers(request)
    for name in claim.signed_headers:
        if name in received:
            signed.headers.add_header(name, received[name])
    signed.context["timestamp"] = claim.timestamp
    signed.context["payload"] = payload
    return signed


def _payload_hash(request: Request, claim: Claim) -> str:
    """Return the hash of the body that the request states; empty if it states none.

    Raises:
        AuthError: the request must state it.
    """
    header = get_headers(request).get("x-amz-content-sha256", "")
    if claim.service == "s3" and not header:
        if claim.expires is None:
            raise AuthError("malformed", "Missing required header for this request: x-amz-content-sha256")
        return UNSIGNED_PAYLOAD
    return header


class _Signer(SigV4Auth):
    """Signs the headers that the sender signed, and no others."""

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        return request.headers

    def payload(self, request: AWSRequest) -> str:
        return str(request.context["payload"])


class _S3Signer(_Signer, S3SigV4Auth):
    """Signs the same with S3's paths, which are not normalised."""
