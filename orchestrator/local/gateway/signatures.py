"""Signatures of requests. A signature proves who sent a request, and that the request was not changed.

The server signs the received request with its own secret key; the result must be the received signature. Botocore would
take three times as long, so it is used only for version 2, which presigned addresses and upload forms of S3 can have.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
https://docs.aws.amazon.com/AmazonS3/latest/API/RESTAuthentication.html
"""

import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Any, cast
from urllib.parse import quote, urlsplit

from botocore.auth import HmacV1PostAuth, HmacV1QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from botocore.utils import normalize_url_path
from werkzeug import Request

from microjobs_orchestrator.local import temporary_credentials
from microjobs_orchestrator.local.gateway.claims import (
    ALGORITHM,
    REMEDY,
    SCOPE_PATTERN,
    V2_PARAMETERS,
    AuthError,
    Claim,
    parse_timestamp,
)
from microjobs_orchestrator.local.identity import Credentials
from microjobs_orchestrator.local.protocols.http import get_headers, get_target, get_virtual_bucket

MAX_SKEW = timedelta(minutes=15)
MAX_LIFETIME = timedelta(days=7)
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"

UNSIGNED_HEADERS = frozenset({"x-amzn-trace-id"})
"""Headers that need no signature: proxies add them to signed requests, and SDKs do not sign them."""

V2_UNSIGNED_PARAMETERS = frozenset(
    {
        *("Expires", "content-md5", "content-type", "x-id"),
        *("continuation-token", "delimiter", "encoding-type", "fetch-owner", "key-marker", "list-type", "marker"),
        *("max-keys", "max-parts", "max-uploads", "part-number-marker", "prefix", "start-after", "upload-id-marker"),
        "version-id-marker",
    }
)
"""Parameters that an address may have, although version 2 does not sign them. Their values are also in a signed part of
the request, or they only select parts of a list."""


@dataclass
class VerifiedSignature:
    """A verified signature. The chunks of a body may have signatures that are based on it."""

    signature: str
    timestamp: str
    scope: str
    sign: Callable[[str], str]
    """Returns the signature of a text, with the key of this date, region and service."""


def verify(
    request: Request,
    claim: Claim,
    home_credentials: Credentials,
    hash_body: Callable[[], str],
    now: datetime | None = None,
) -> VerifiedSignature | None:
    """Verify that the holder of the credentials signed this request, and set the caller.

    For S3, this function does not verify the body. S3's operations verify it while they read it.

    Args:
        hash_body: reads the body; returns its SHA-256 in hexadecimal digits.

    Returns:
        The verified signature; None for version 2, because signatures of chunks cannot be based on it.

    Raises:
        AuthError: the request was signed with other credentials, has expired or a wrong time, or was changed.
    """
    now = now or datetime.now(UTC)
    credentials = _identify(claim.access_key_id, _get_session_token(request), home_credentials, now)
    if claim.version == 2:
        if now.timestamp() > int(claim.timestamp):
            raise AuthError("expired", f"Request has expired: it was valid until {claim.timestamp} seconds since 1970")
        _check_signature(claim.signature, _sign_v2(request, claim, credentials))
        return None
    _check_time(claim, now)
    _check_signed_headers(request, claim)
    return _verify_v4(request, claim, credentials, hash_body)


def _verify_v4(
    request: Request, claim: Claim, credentials: Credentials, hash_body: Callable[[], str]
) -> VerifiedSignature:
    payload_hash = _get_payload_hash(request, claim)
    sign = _make_signer(credentials.secret_access_key, claim.timestamp[:8], claim.region, claim.service)
    scope = f"{claim.timestamp[:8]}/{claim.region}/{claim.service}/aws4_request"
    canonical_digest = sha256(_make_canonical_request(request, claim, payload_hash or hash_body()).encode()).hexdigest()
    signature = sign("\n".join((ALGORITHM, claim.timestamp, scope, canonical_digest)))
    _check_signature(claim.signature, signature)
    if payload_hash and claim.service != "s3" and payload_hash != hash_body():
        raise AuthError("payload", f"the body's SHA-256 is {hash_body()}, but x-amz-content-sha256 is {payload_hash}")
    return VerifiedSignature(signature, claim.timestamp, scope, sign)


def verify_form(form: Mapping[str, str], home_credentials: Credentials) -> None:
    """Verify the signature of an upload form's policy, and set the caller.

    Args:
        form: the form's fields by their names in lower case.

    Raises:
        AuthError: the policy has no signature, or was signed with other credentials.
    """
    now, token, policy = datetime.now(UTC), form.get("x-amz-security-token"), form.get("policy", "")
    if "awsaccesskeyid" in form:
        signer = HmacV1PostAuth(_to_botocore(_identify(form["awsaccesskeyid"], token, home_credentials, now)))
        _check_signature(form.get("signature", ""), signer.sign_string(policy))
    elif scope := SCOPE_PATTERN.fullmatch(form.get("x-amz-credential", "")):
        credentials = _identify(scope["key"], token, home_credentials, now)
        timestamp = parse_timestamp(form.get("x-amz-date", ""))
        is_consistent = scope["service"] == "s3" and timestamp.startswith(scope["date"])
        if form.get("x-amz-algorithm") != ALGORITHM or not is_consistent:
            raise AuthError("malformed", "the form's x-amz-algorithm, x-amz-credential and x-amz-date are inconsistent")
        sign = _make_signer(credentials.secret_access_key, scope["date"], scope["region"], "s3")
        _check_signature(form.get("x-amz-signature", ""), sign(policy))
    else:
        raise AuthError("missing", f"the form is not signed; {REMEDY}")


# --- credentials ---


def _identify(access_key_id: str, token: str | None, home_credentials: Credentials, now: datetime) -> Credentials:
    """Return the credentials that a request claims to be signed with: the home's, or temporary ones. Set the caller.

    Raises:
        AuthError: the access key is unknown, or the session token is not valid for it.
    """
    if token is None:
        if access_key_id != home_credentials.access_key_id:
            raise AuthError("key", f"access key {access_key_id} is not this server's; {REMEDY}")
        credentials, caller = home_credentials, temporary_credentials.HOME_CALLER
    else:
        try:
            credentials, caller = temporary_credentials.verify_token(
                home_credentials, access_key_id, token, now.timestamp()
            )
        except temporary_credentials.TokenExpiredError as error:
            raise AuthError(
                "expired-token", f"the session token expired at {error}: request a new one from STS"
            ) from error
        except temporary_credentials.TokenError as error:
            message = f"the session token is not valid: {error}; unset AWS_SESSION_TOKEN, and {REMEDY}"
            raise AuthError("token", message) from error
    temporary_credentials.current_caller.set(caller)
    return credentials


def _to_botocore(credentials: Credentials) -> BotocoreCredentials:
    return BotocoreCredentials(credentials.access_key_id, credentials.secret_access_key)


def _get_session_token(request: Request) -> str | None:
    """Return the session token, from a header or a presigned address. In version 2, the parameter is in lower case."""
    names = ("X-Amz-Security-Token", "x-amz-security-token")
    token = get_headers(request).get(names[1]) or None
    if token is None and request.query_string:
        return next((request.args[name] for name in names if name in request.args), None)
    return token


# --- checks ---


def _check_signature(signature: str, expected_signature: str) -> None:
    if not hmac.compare_digest(expected_signature.encode(), signature.encode()):
        raise AuthError("signature", f"the signature does not match this server's secret key; {REMEDY}")


def _check_time(claim: Claim, now: datetime) -> None:
    signing_time = datetime.fromisoformat(claim.timestamp)
    if claim.lifetime is None:
        if abs(now - signing_time) > MAX_SKEW:
            message = f"signed at {signing_time:%F %T}, but it is {now:%F %T} UTC: correct the client's clock"
            raise AuthError("time", message)
    elif claim.lifetime > MAX_LIFETIME:
        raise AuthError("malformed", "X-Amz-Expires must be at most 604800 seconds, a week")
    elif signing_time - now > MAX_SKEW or now > signing_time + claim.lifetime:
        message = f"Request has expired: it was valid for {claim.lifetime} from {signing_time:%F %T} UTC"
        raise AuthError("expired", message)


def _check_signed_headers(request: Request, claim: Claim) -> None:
    """Refuse a request whose signature does not cover `host` or one of Amazon's headers, as AWS does: anyone could have
    added the header."""
    if names := _list_unsigned_headers(tuple(get_headers(request)), claim.signed_headers):
        raise AuthError("signature", f"these headers must be signed: {', '.join(sorted(names))}")


@lru_cache(maxsize=64)
def _list_unsigned_headers(names: Iterable[str], signed_names: Iterable[str]) -> Sequence[str]:
    """Return the headers that must be signed and are not. The results are cached, because clients often send the same
    names of headers."""
    amazon_headers = [name for name in names if name.startswith(("x-amz-", "x-amzn-"))]
    return [name for name in ("host", *amazon_headers) if name not in {*signed_names, *UNSIGNED_HEADERS}]


# --- version 4 ---


@lru_cache(maxsize=64)
def _make_signer(secret_access_key: str, date: str, region: str, service: str) -> Callable[[str], str]:
    """Return a function that signs a text with the key of a date, region and service."""
    key = f"AWS4{secret_access_key}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    empty_mac = hmac.new(key, digestmod="sha256")

    def sign(text: str) -> str:
        mac = empty_mac.copy()
        mac.update(text.encode())
        return mac.hexdigest()

    return sign


def _make_canonical_request(request: Request, claim: Claim, payload_hash: str) -> str:
    """Return the text that the sender's client signed: the request with the headers that the signature names."""
    path, query = get_target(request)  # WSGI's own path is decoded, and decoding `%2F` cannot be undone
    headers = get_headers(request)
    names = sorted({name for name in claim.signed_headers if name in headers})
    return "\n".join(
        (
            request.method.upper(),
            path if claim.service == "s3" else _normalize_path(path),
            _make_canonical_query(query) if query else "",
            *[f"{name}:{' '.join(headers[name].split())}" for name in names],
            "",
            ";".join(names),
            payload_hash,
        )
    )


def _make_canonical_query(query: str) -> str:
    parameters = [part.partition("=")[::2] for part in query.split("&") if not part.startswith("X-Amz-Signature=")]
    return "&".join(f"{name}={value}" for name, value in sorted(parameters))


@lru_cache(maxsize=1024)
def _normalize_path(path: str) -> str:
    """Return a path as all services except S3 sign it: without dot segments, and percent-encoded once more."""
    return quote(normalize_url_path(path), safe="/-_.~")


def _get_payload_hash(request: Request, claim: Claim) -> str:
    """Return the hash of the body that the request states; empty if it states none. A presigned address of S3 may omit
    it: the result is then UNSIGNED_PAYLOAD.

    Raises:
        AuthError: the request must state the hash, but does not.
    """
    header = get_headers(request).get("x-amz-content-sha256", "")
    if claim.service == "s3" and not header:
        if claim.lifetime is None:
            raise AuthError("malformed", "Missing required header for this request: x-amz-content-sha256")
        return UNSIGNED_PAYLOAD
    return header


# --- version 2 ---


def _sign_v2(request: Request, claim: Claim, credentials: Credentials) -> str:
    """Return the signature that a presigned address must have.

    Raises:
        AuthError: the address has a parameter that version 2 does not sign.
    """
    signer = _V2Signer(_to_botocore(credentials))
    signer.expiry = claim.timestamp
    for name in request.args:  # version 2 does not sign parameters of newer operations, such as `attributes`
        is_signed = name in signer.QSAOfInterest or name.lower().startswith("x-amz-") or name.lower() in V2_PARAMETERS
        if not is_signed and name not in V2_UNSIGNED_PARAMETERS:
            raise AuthError("signature", f"version 2 does not sign the parameter {name!r:.80}: presign with version 4")
    # When botocore presigns an address, it computes the signature with these headers, and then sends them as
    # parameters of the address. So they become headers again here.
    headers_in_query = {
        name: value
        for name, value in request.args.items()
        if name.startswith("x-amz-") or name in ("content-type", "content-md5")
    }
    headers = cast("Mapping[str, Any]", AWSRequest(headers={**headers_in_query, **get_headers(request)}).headers)
    path, query = get_target(request)
    bucket = get_virtual_bucket(request)
    resource = f"/{bucket}{path}" if bucket else path if path.count("/") > 1 or path == "/" else f"{path}/"
    address = urlsplit(f"http://host{path}?{query}")
    return str(signer.get_signature(request.method, address, headers, auth_path=resource))


class _V2Signer(HmacV1QueryAuth):
    """Signs with the expiry time of the address. Botocore would use a time relative to the current time."""

    expiry = ""

    def _get_date(self) -> str:
        return self.expiry
