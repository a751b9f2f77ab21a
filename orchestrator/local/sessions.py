"""Temporary credentials, which STS issues. They are valid only for the home that issued them.

Nothing is stored. A session token contains the caller and the expiry, authenticated with the home's secret, and the
secret access key is derived from the token. So sessions survive restarts, and end when the home's credentials change.
"""

import base64
import hmac
import json
import secrets
import string
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass

from microjobs_orchestrator.local.identity import ACCOUNT, Credentials

USER = "microjobs"


class SessionError(Exception):
    """A session token is invalid."""


class SessionExpiredError(Exception):
    """A session token has expired."""


@dataclass(frozen=True)
class Caller:
    """Sender of a request."""

    arn: str
    user_id: str


OWNER = Caller(f"arn:aws:iam::{ACCOUNT}:user/{USER}", USER)
"""The caller with the home's own credentials."""

caller: ContextVar[Caller] = ContextVar("caller", default=OWNER)
"""Sender of the request that this thread answers."""


@dataclass(frozen=True)
class Session:
    """Temporary credentials."""

    credentials: Credentials
    token: str
    expiry: float
    """Seconds since 1970."""


def issue(home: Credentials, who: Caller, seconds: int) -> Session:
    """Create temporary credentials for a caller."""
    key = "ASIA" + "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(16))
    expiry = float(int(time.time()) + seconds)
    content = json.dumps({"key": key, "expiry": expiry, "caller": asdict(who)}, separators=(",", ":")).encode()
    token = _encode(content + _digest(home, "token", content))
    return Session(Credentials(key, _encode(_digest(home, "secret", content))), token, expiry)


def parse_token(home: Credentials, access_key_id: str, token: str, now: float) -> tuple[Credentials, Caller]:
    """Return the credentials and the caller of a session token.

    Raises:
        SessionError: the server did not issue the token, or not with this access key.
        SessionExpiredError: the token has expired.
    """
    try:
        decoded = base64.b64decode(token, validate=True)
    except ValueError as error:
        raise SessionError("it is not in base64") from error
    content, signature = decoded[:-DIGEST_BYTES], decoded[-DIGEST_BYTES:]
    if not hmac.compare_digest(signature, _digest(home, "token", content)):
        raise SessionError("this server did not issue it")
    known = json.loads(content)
    if known["key"] != access_key_id:
        raise SessionError("it belongs to another access key")
    if now >= known["expiry"]:
        raise SessionExpiredError(time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(known["expiry"])))
    return Credentials(access_key_id, _encode(_digest(home, "secret", content))), Caller(**known["caller"])


DIGEST_BYTES = 32


def _digest(home: Credentials, purpose: str, content: bytes) -> bytes:
    key = hmac.digest(home.secret_access_key.encode(), f"microjobs session {purpose}".encode(), "sha256")
    return hmac.digest(key, content, "sha256")


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def format_credentials(session: Session) -> Mapping[str, object]:
    """Return the credentials as members of STS's results."""
    return {
        "AccessKeyId": session.credentials.access_key_id,
        "SecretAccessKey": session.credentials.secret_access_key,
        "SessionToken": session.token,
        "Expiration": session.expiry,
    }
