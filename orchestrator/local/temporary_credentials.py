"""Temporary credentials, which STS issues. They are valid only for the home that issued them.

Nothing is stored. A session token contains the caller and the expiry, authenticated with the home's secret, and the
secret access key is derived from the token. Therefore, the credentials survive restarts, and end when the home's own
credentials change.
"""

import base64
import hmac
import json
import secrets
import string
import time
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

from microjobs_orchestrator.local.identity import ACCOUNT, Credentials

USER = "microjobs"
DIGEST_BYTES = 32


class TokenError(Exception):
    """A session token is invalid."""


class TokenExpiredError(Exception):
    """A session token has expired."""


@dataclass(frozen=True)
class Caller:
    """The sender of a request."""

    arn: str
    user_id: str


HOME_CALLER = Caller(f"arn:aws:iam::{ACCOUNT}:user/{USER}", USER)
"""The caller with the home's own credentials."""

current_caller: ContextVar[Caller] = ContextVar("current_caller", default=HOME_CALLER)
"""The sender of the request that the current thread or task answers."""


def issue(home_credentials: Credentials, session_caller: Caller, seconds: int) -> dict[str, Any]:
    """Create temporary credentials for a caller. Return them as members of STS's results."""
    key = "ASIA" + "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(16))
    expiry = float(int(time.time()) + seconds)
    content = json.dumps(
        {"key": key, "expiry": expiry, "caller": asdict(session_caller)}, separators=(",", ":")
    ).encode()
    return {
        "AccessKeyId": key,
        "SecretAccessKey": _encode(_compute_digest(home_credentials, "secret", content)),
        "SessionToken": _encode(content + _compute_digest(home_credentials, "token", content)),
        "Expiration": expiry,
    }


def verify_token(
    home_credentials: Credentials, access_key_id: str, token: str, now: float
) -> tuple[Credentials, Caller]:
    """Return the credentials and the caller of a session token.

    Raises:
        TokenError: the server did not issue the token, or issued it with another access key.
        TokenExpiredError: the token has expired.
    """
    try:
        decoded = base64.b64decode(token, validate=True)
    except ValueError as error:
        raise TokenError("it is not in base64") from error
    content, signature = decoded[:-DIGEST_BYTES], decoded[-DIGEST_BYTES:]
    if not hmac.compare_digest(signature, _compute_digest(home_credentials, "token", content)):
        raise TokenError("this server did not issue it")
    session = json.loads(content)
    if session["key"] != access_key_id:
        raise TokenError("it belongs to another access key")
    if now >= session["expiry"]:
        raise TokenExpiredError(time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(session["expiry"])))
    return Credentials(access_key_id, _encode(_compute_digest(home_credentials, "secret", content))), Caller(
        **session["caller"]
    )


def _compute_digest(home_credentials: Credentials, purpose: str, content: bytes) -> bytes:
    key = hmac.digest(home_credentials.secret_access_key.encode(), f"microjobs session {purpose}".encode(), "sha256")
    return hmac.digest(key, content, "sha256")


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()
