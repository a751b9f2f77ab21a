"""Signatures, version 4: who calls knows the secret that this server made, and nobody changed what they sent.

Botocore signs what the request says with our secret; the signature must come out the same.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from botocore import credentials as botocore_credentials
from botocore.auth import HmacV1PostAuth, HmacV1QueryAuth, S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from werkzeug import Request

from microjobs_orchestrator.local import sessions
from microjobs_orchestrator.local.gateway.auth_errors import REMEDY
from microjobs_orchestrator.local.gateway.auth_errors import AuthError as AuthError
from microjobs_orchestrator.local.gateway.auth_errors import Kind as Kind
from microjobs_orchestrator.local.gateway.listener import HEADERS
from microjobs_orchestrator.local.identity import Credentials
from microjobs_orchestrator.local.s3.hosts import bucket_of_host

SKEW = timedelta(minutes=15)
LONGEST_EXPIRY = timedelta(days=7)
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
PROOF = "microjobs.proof"
"""Where a WSGI environment has the `Proof` of its request, once that is found true."""


PRESIGNED = frozenset({"awsaccesskeyid", "signature"})
"""Query parameters of presigned addresses, in lower case, besides `X-Amz-…`."""

UNSIGNED_V2 = frozenset(
    {
        *("Expires", "content-md5", "content-type", "x-id"),
        *("continuation-token", "delimiter", "encoding-type", "fetch-owner", "key-marker", "list-type", "marker"),
        *("max-keys", "max-parts", "max-uploads", "part-number-marker", "prefix", "start-after", "upload-id-marker"),
        "version-id-marker",
    }
)
"""Parameters that may be in an address of version 2: they are signed elsewhere, or say what a listing has."""

UNSIGNABLE = frozenset({"x-amzn-trace-id"})
"""Proxies add it to requests that are signed already, and SDKs leave it out of their signatures."""

SCOPE = re.compile(r"(?P<key>[^/]+)/(?P<date>[0-9]{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")


@dataclass(frozen=True)
class Claim:
    """Who a request says that it is from, before anybody looked whether that is true."""

    access_key_id: str
    region: str
    service: str
    """As in the scope: `sagemaker` for SageMaker Runtime, too."""
    timestamp: str
    """As `20260131T235959Z`."""
    signed_headers: tuple[str, ...]
    signature: str
    expires: timedelta | None = None
    """Of a presigned address; None if the signature is in a header."""
    version: Literal[2, 4] = 4


@dataclass(frozen=True)
class Proof:
    """A signature that is true, and how to go on from it: a body may have signatures of its own that follow it."""

    signature: str
    timestamp: str
    scope: str
    sign: Callable[[str], str]
    """The signature of a text, with the key of this date, region and service."""


# --- what the request says ---


def claim(request: Request) -> Claim:
    """Read a request's signature, from its header or its presigned address.

    Raises:
        AuthError: there is none, or several, or it cannot be read.
    """
    header = request.headers.get("Authorization", "")
    _check_parameters(request, has_header=bool(header))
    if header:
        return _header_claim(request, header)
    if "X-Amz-Signature" in request.args:
        return _presigned_claim(request)
    if "AWSAccessKeyId" in request.args:
        return _presigned_v2_claim(request)
    raise AuthError("missing", f"the request is not signed; {REMEDY}")


def _check_parameters(request: Request, *, has_header: bool) -> None:
    """Refuse two signatures in one request: the one that is checked could differ from the one that is used."""
    sent = [name.lower() for name in request.args for _ in request.args.getlist(name)]
    presigned = [name for name in sent if name.startswith("x-amz-") or name in PRESIGNED]
    if has_header and not {"x-amz-signature", "signature"}.isdisjoint(presigned):
        raise AuthError("malformed", "the request has an Authorization header and is presigned, too; send one of them")
    if twice := {name for name in presigned if presigned.count(name) > 1}:
        raise AuthError("malformed", f"parameters of the address came more than once: {', '.join(sorted(twice))}")


def _header_claim(request: Request, header: str) -> Claim:
    algorithm, _, rest = header.partition(" ")
    parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    scope = SCOPE.fullmatch(parts.get("Credential", ""))
    if algorithm != "AWS4-HMAC-SHA256" or scope is None or not parts.get("SignedHeaders") or not parts.get("Signature"):
        raise AuthError("malformed", f"Authorization is not of signature version 4: {algorithm[:40]!r} …")
    timestamp = _timestamp(request.headers.get("X-Amz-Date") or request.headers.get("Date", ""))
    headers = tuple(parts["SignedHeaders"].split(";"))
    return Claim(scope["key"], scope["region"], scope["service"], timestamp, headers, parts["Signature"])


def _presigned_claim(request: Request) -> Claim:
    arguments = request.args
    scope = SCOPE.fullmatch(arguments.get("X-Amz-Credential", ""))
    seconds = arguments.get("X-Amz-Expires", "")
    if (
        arguments.get("X-Amz-Algorithm") != "AWS4-HMAC-SHA256"
        or scope is None
        or not re.fullmatch("[0-9]{1,6}", seconds)
    ):
        raise AuthError("malformed", "the presigned address is not of signature version 4, or lacks X-Amz-Expires")
    return Claim(
        scope["key"],
        scope["region"],
        scope["service"],
        _timestamp(arguments.get("X-Amz-Date", "")),
        tuple(arguments.get("X-Amz-SignedHeaders", "").split(";")),
        arguments["X-Amz-Signature"],
        timedelta(seconds=int(seconds)),
    )


def _presigned_v2_claim(request: Request) -> Claim:
    """Boto3 still presigns with version 2 if it is not told otherwise, and S3 in us-east-1 still takes it."""
    arguments = request.args
    key, expiry, signature = (arguments.get(name, "") for name in ("AWSAccessKeyId", "Expires", "Signature"))
    if not re.fullmatch("[0-9]{1,11}", expiry):
        raise AuthError("malformed", f"Expires of the presigned address is {expiry!r}, not seconds since 1970")
    return Claim(key, "", "s3", expiry, (), signature, version=2)


def _timestamp(text: str) -> str:
    """A date in the form that is signed, from that form or from a `Date` header."""
    try:
        if re.fullmatch("[0-9]{8}T[0-9]{6}Z", text):
            _time(text)
            return text
        timestamp = parsedate_to_datetime(text).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        _time(timestamp)
        return timestamp
    except (ValueError, OverflowError) as error:  # years before 1000 and after 9999, too
        raise AuthError(
            "malformed", f"the request's date is {text!r}: X-Amz-Date must be as 20260131T235959Z"
        ) from error


def _time(timestamp: str) -> datetime:
    return datetime.strptime(timestamp, "%Y%m%dT%H%M%S%z")


# --- whether it is true ---


def verify(
    request: Request,
    claimed: Claim,
    credentials: Credentials,
    digest: Callable[[], str],
    now: datetime | None = None,
) -> Proof | None:
    """Check a request against the credentials. The body is read last, if at all: S3 checks it itself.

    Args:
        digest: reads the body; its SHA-256 in hexadecimal digits.

    Returns:
        The signature, for what follows from it; None for one of version 2, from which nothing can.

    Raises:
        AuthError: it was signed with other credentials, too long ago, or is not what was signed.
    """
    now = now or datetime.now(UTC)
    credentials = signed_with(claimed.access_key_id, _session_token(request), credentials, now)
    if claimed.version == 2:
        _verify_presigned_v2(request, claimed, credentials, now)
        return None
    _check_time(claimed, now)
    _check_headers(request, claimed)
    signer = (_S3Signer if claimed.service == "s3" else _Signer)(
        _botocore(credentials),
        claimed.service,
        claimed.region,
    )
    payload = _payload(request, claimed)
    signed = _as_signed(request, claimed, payload or digest())
    expected = signer.signature(signer.string_to_sign(signed, signer.canonical_request(signed)), signed)
    _compare(claimed, expected)
    if payload and claimed.service != "s3" and payload != digest():
        raise AuthError("payload", f"the body's SHA-256 is {digest()}, and x-amz-content-sha256 says {payload}")
    scope = signer.credential_scope(signed)
    return Proof(expected, claimed.timestamp, scope, lambda text: signer.signature(text, signed))


def verify_form(form: Mapping[str, str], home: Credentials, now: datetime | None = None) -> None:
    """Check the signature of an upload's policy, by the form's fields with their names in lower case.

    Raises:
        AuthError: there is none, or the policy was not signed with the home's credentials or a session's.
    """
    now = now or datetime.now(UTC)
    token, policy = form.get("x-amz-security-token"), form.get("policy", "")
    if "awsaccesskeyid" in form:
        credentials = signed_with(form["awsaccesskeyid"], token, home, now)
        expected = HmacV1PostAuth(_botocore(credentials)).sign_string(policy)
        signature = form.get("signature", "")
    elif scope := SCOPE.fullmatch(form.get("x-amz-credential", "")):
        credentials = signed_with(scope["key"], token, home, now)
        expected = _form_signature(form, scope, credentials, policy)
        signature = form.get("x-amz-signature", "")
    else:
        raise AuthError("missing", f"the form is not signed; {REMEDY}")
    _compare(Claim("", "", "s3", "", (), signature), expected)


def _form_signature(form: Mapping[str, str], scope: re.Match[str], credentials: Credentials, policy: str) -> str:
    timestamp = _timestamp(form.get("x-amz-date", ""))
    fits = scope["service"] == "s3" and timestamp.startswith(scope["date"])
    if form.get("x-amz-algorithm") != "AWS4-HMAC-SHA256" or not fits:
        raise AuthError("malformed", "the form's x-amz-algorithm, x-amz-credential and x-amz-date do not fit")
    signed = AWSRequest()
    signed.context["timestamp"] = timestamp
    return str(_S3Signer(_botocore(credentials), "s3", scope["region"]).signature(policy, signed))


def signed_with(access_key_id: str, token: str | None, home: Credentials, now: datetime) -> Credentials:
    """The credentials that a request claims to be signed with, the home's or a session's; sets the caller.

    Raises:
        AuthError: the server does not know the access key, or the session token is not valid for it.
    """
    if token is None:
        if access_key_id != home.access_key_id:
            raise AuthError("key", f"access key {access_key_id} is not this server's; {REMEDY}")
        sessions.caller.set(sessions.OWNER)
        return home
    try:
        credentials, caller = sessions.read(home, access_key_id, token, now.timestamp())
    except sessions.SessionExpiredError as error:
        raise AuthError("session", f"the session token expired at {error}: ask STS for a new one") from error
    except sessions.SessionError as error:
        raise AuthError(
            "token", f"the session token is not valid: {error}; unset AWS_SESSION_TOKEN, and {REMEDY}"
        ) from error
    sessions.caller.set(caller)
    return credentials


def _session_token(request: Request) -> str | None:
    """The session token, in a header or in a presigned address, where version 2 writes it in lower case."""
    names = ("X-Amz-Security-Token", "x-amz-security-token")
    return request.headers.get(names[0]) or next((request.args[name] for name in names if name in request.args), None)


def _verify_presigned_v2(request: Request, claimed: Claim, credentials: Credentials, now: datetime) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/RESTAuthentication.html"""
    if now.timestamp() > int(claimed.timestamp):
        raise AuthError("expired", f"Request has expired: it was good until {claimed.timestamp} seconds since 1970")
    signer = _V2Signer(_botocore(credentials))
    signer.expiry = claimed.timestamp
    _check_v2_parameters(request.args, signer)
    # Botocore moves headers of S3's into the address, where they are signed as if they were headers.
    moved = {
        name: value
        for name, value in request.args.items()
        if name.startswith("x-amz-") or name in ("content-type", "content-md5")
    }
    sent = AWSRequest(method=request.method, headers={**moved, **_headers(request)})
    address = urlsplit(f"http://host{request.environ['REQUEST_URI']}")
    headers = cast("Mapping[str, Any]", sent.headers)
    _compare(claimed, signer.get_signature(request.method, address, headers, auth_path=_resource(request)))


def _check_v2_parameters(names: Iterable[str], signer: HmacV1QueryAuth) -> None:
    """Refuse what version 2 does not sign and newer operations are chosen by: `attributes`, `renameObject`, …"""
    for name in names:
        is_signed = name in signer.QSAOfInterest or name.lower().startswith("x-amz-") or name.lower() in PRESIGNED
        if not is_signed and name not in UNSIGNED_V2:
            raise AuthError("signature", f"version 2 does not sign the parameter {name!r:.80}: presign with version 4")


def _resource(request: Request) -> str:
    """The bucket and the key as version 2 signs them, whether the bucket is in the path or in the host."""
    path = request.environ["REQUEST_URI"].partition("?")[0]
    if bucket := bucket_of_host(request.headers.get("Host", "")):
        return f"/{bucket}{path}"
    return path if path.count("/") > 1 or path == "/" else f"{path}/"


def _compare(claimed: Claim, expected: str) -> None:
    if not hmac.compare_digest(expected.encode(), claimed.signature.encode()):
        raise AuthError("signature", f"the signature is not what this server's secret key gives; {REMEDY}")


def _botocore(credentials: Credentials) -> botocore_credentials.Credentials:
    return botocore_credentials.Credentials(credentials.access_key_id, credentials.secret_access_key)


def _check_time(claimed: Claim, now: datetime) -> None:
    signed = _time(claimed.timestamp)
    if claimed.expires is None:
        if abs(now - signed) > SKEW:
            raise AuthError("time", f"signed at {signed:%F %T}, and it is {now:%F %T} UTC: set the clock right")
    elif claimed.expires > LONGEST_EXPIRY:
        raise AuthError("malformed", "X-Amz-Expires must be at most 604800 seconds, a week")
    elif signed - now > SKEW or now > signed + claimed.expires:
        raise AuthError("expired", f"Request has expired: it was good for {claimed.expires} from {signed:%F %T} UTC")


def _check_headers(request: Request, claimed: Claim) -> None:
    """What is not signed may have been added by anybody, so AWS wants its own headers signed."""
    amazons = {name for name in _headers(request) if name.startswith(("x-amz-", "x-amzn-"))}
    needed = {"host"} | (amazons - UNSIGNABLE)
    missing = needed - set(claimed.signed_headers)
    if missing:
        raise AuthError("signature", f"headers that must be signed are not: {', '.join(sorted(missing))}")


def _headers(request: Request) -> Mapping[str, str]:
    """Headers by their names in lower case; WSGI's own do not tell `x-amz-meta-a_b` from `x-amz-meta-a-b`."""
    received = request.environ.get(HEADERS, request.headers)
    return {name.lower(): value for name, value in received.items()}


def _as_signed(request: Request, claimed: Claim, payload: str) -> AWSRequest:
    """The request as its sender's botocore had it when it was signed."""
    # The path as it was sent: WSGI's own is decoded, and decoding `%2F` cannot be undone.
    path, _, query = request.environ["REQUEST_URI"].partition("?")
    kept = "&".join(part for part in query.split("&") if not part.startswith("X-Amz-Signature="))
    signed = AWSRequest(method=request.method, url=f"http://host{path}?{kept}")
    received = _headers(request)
    for name in claimed.signed_headers:
        if name in received:
            signed.headers.add_header(name, received[name])
    signed.context["timestamp"] = claimed.timestamp
    signed.context["payload"] = payload
    return signed


def _payload(request: Request, claimed: Claim) -> str:
    """What the sender says about the body and has signed; empty if the request does not say it.

    Raises:
        AuthError: it must say it, and does not.
    """
    header = _headers(request).get("x-amz-content-sha256", "")
    if claimed.service == "s3" and not header:
        if claimed.expires is None:
            raise AuthError("malformed", "Missing required header for this request: x-amz-content-sha256")
        return UNSIGNED_PAYLOAD
    return header


class _Signer(SigV4Auth):
    """Signs the headers that the sender signed, all of them and no others."""

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        return request.headers

    def payload(self, request: AWSRequest) -> str:
        return str(request.context["payload"])


class _S3Signer(_Signer, S3SigV4Auth):
    """Signs the same with S3's paths, which are not normalised."""


class _V2Signer(HmacV1QueryAuth):
    """Version 2 with the expiry that the address has, not one counted from now."""

    expiry = ""

    def _get_date(self) -> str:
        return self.expiry
