"""Sessions of browsers. A one-time token opens a session, which has a cookie and a secret.

A browser sends cookies of 127.0.0.1 to the programs on all ports. Therefore, each request also needs the secret in a
header. The secret is in the storage of the page's origin, which pages of other ports cannot read.
"""

import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from microjobs_orchestrator.local.console_address import Token
from microjobs_orchestrator.local.errors import ServiceError

IDLE_SECONDS = 12 * 3600.0
"""A session ends this time after its last request, and when the server stops."""
MAX_SESSIONS = 32
"""A new session beyond this limit ends the session that was idle for the longest time."""
REMEDY = "open the address that `microjobs local console` prints"


class Keys(NamedTuple):
    """The two values that each request of a session contains."""

    cookie: str
    secret: str


@dataclass
class _Session:
    secret: str
    deadline: float


class Sessions:
    """All sessions. Methods may be called from any thread.

    Args:
        read_token: returns a token that is genuine and has not expired; otherwise None.
    """

    def __init__(self, read_token: Callable[[str], Token | None]) -> None:
        self._read_token = read_token
        self._used_tokens: dict[str, int] = {}
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()

    def open(self, text: str) -> Keys:
        """Open a session with a token.

        Raises:
            ServiceError: the token is not genuine, has expired, or was used.
        """
        token = self._read_token(text)
        with self._lock:
            self._used_tokens = {nonce: end for nonce, end in self._used_tokens.items() if end > time.time()}
            if token is None or token.nonce in self._used_tokens:
                raise _make_error(f"this address was used, has expired, or belongs to another server: {REMEDY}")
            self._used_tokens[token.nonce] = token.expiry
            keys = Keys(secrets.token_urlsafe(32), secrets.token_urlsafe(32))
            self._remove_old_sessions()
            self._sessions[_hash(keys.cookie)] = _Session(keys.secret, time.monotonic() + IDLE_SECONDS)
            return keys

    def check(self, keys: Keys) -> None:
        """Prolong the session of a request.

        Raises:
            ServiceError: there is no such session, or the secret is wrong.
        """
        with self._lock:
            session = self._sessions.get(_hash(keys.cookie))
            if session is None or session.deadline < time.monotonic():
                raise _make_error(f"this browser has no session: {REMEDY}")
            if not hmac.compare_digest(session.secret.encode(), keys.secret.encode()):
                raise _make_error(f"the secret of the session is missing or wrong: {REMEDY}")
            session.deadline = time.monotonic() + IDLE_SECONDS

    def is_open(self, cookie: str) -> bool:
        """Return whether the session with this cookie is open. This call does not extend the session."""
        with self._lock:
            session = self._sessions.get(_hash(cookie))
            return session is not None and session.deadline >= time.monotonic()

    def _remove_old_sessions(self) -> None:
        now = time.monotonic()
        live = sorted((item for item in self._sessions.items() if item[1].deadline >= now), key=_get_deadline)
        self._sessions = dict(live[-MAX_SESSIONS + 1 :])


def _get_deadline(item: tuple[str, _Session]) -> float:
    return item[1].deadline


def _hash(cookie: str) -> str:
    return sha256(cookie.encode()).hexdigest()


def _make_error(message: str) -> ServiceError:
    return ServiceError("NoSession", message, 401)
