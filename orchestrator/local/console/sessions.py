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
"""Seconds without a request after which a session ends. All sessions end when the server stops."""
MAX_SESSIONS = 32
"""Maximum number of sessions. A new session beyond this limit ends the session that was idle for the longest time."""
REPEAT_SECONDS = 10.0
"""Seconds in which a page may send its token again if the response was lost."""
REMEDY = "open the address that `microjobs local console` prints"


class SessionKeys(NamedTuple):
    """The two values that each request of a session contains."""

    cookie: str
    secret: str


@dataclass
class _Session:
    """An open session."""

    secret: str
    deadline: float
    """The time at which the session ends if no request prolongs it, by `time.monotonic`."""


@dataclass(frozen=True)
class _TokenUse:
    """The last use of a token."""

    expiry: int
    """The time at which the token expires, in seconds since 1970."""
    page_key_hash: str
    repeat_deadline: float
    """REPEAT_SECONDS after the first use, by `time.monotonic`."""
    cookie_hash: str
    """The hash of the cookie of the session, which identifies the session."""


class Sessions:
    """All sessions. Methods may be called from any thread.

    Args:
        read_token: returns the token if it is genuine and has not expired, else None.
    """

    def __init__(self, read_token: Callable[[str], Token | None]) -> None:
        self._read_token = read_token
        self._uses: dict[str, _TokenUse] = {}
        """The last use of each used token, by its nonce."""
        self._sessions: dict[str, _Session] = {}
        """The sessions, by the hashes of their cookies."""
        self._lock = threading.Lock()

    def open(self, token_text: str, page_key: str = "") -> SessionKeys:
        """Open a session with a token.

        Args:
            page_key: a secret of the page. With the same key, the page may send its token again for REPEAT_SECONDS, in
                case it did not receive the response. The new session then replaces the previous one. Without a key, the
                token works once.

        Raises:
            ServiceError: the token is not genuine, has expired, or was used.
        """
        token = self._read_token(token_text)
        keys = SessionKeys(secrets.token_urlsafe(32), secrets.token_urlsafe(32))
        cookie_hash = _hash(keys.cookie)
        with self._lock:
            self._uses = {nonce: use for nonce, use in self._uses.items() if use.expiry > time.time()}
            use = self._uses.get(token.nonce) if token else None
            if token is None or (use is not None and not _is_repeated(use, page_key)):
                raise _make_no_session_error(
                    f"this address was used, has expired, or belongs to another server: {REMEDY}"
                )
            if use is not None:
                self._sessions.pop(use.cookie_hash, None)
            deadline = use.repeat_deadline if use else time.monotonic() + REPEAT_SECONDS
            self._uses[token.nonce] = _TokenUse(token.expiry, _hash(page_key), deadline, cookie_hash)
            self._remove_old_sessions()
            self._sessions[cookie_hash] = _Session(keys.secret, time.monotonic() + IDLE_SECONDS)
            return keys

    def check(self, keys: SessionKeys) -> None:
        """Check the keys of a request, and prolong its session.

        Raises:
            ServiceError: there is no such session, or the secret is wrong.
        """
        with self._lock:
            session = self._sessions.get(_hash(keys.cookie))
            if session is None or session.deadline < time.monotonic():
                raise _make_no_session_error(f"this browser has no session: {REMEDY}")
            if not hmac.compare_digest(session.secret.encode(), keys.secret.encode()):
                raise _make_no_session_error(f"the secret of the session is missing or wrong: {REMEDY}")
            session.deadline = time.monotonic() + IDLE_SECONDS

    def is_open(self, cookie: str) -> bool:
        """Return whether the session with this cookie is open. This call does not prolong the session."""
        with self._lock:
            session = self._sessions.get(_hash(cookie))
            return session is not None and session.deadline >= time.monotonic()

    def _remove_old_sessions(self) -> None:
        """Remove the sessions that have ended. If MAX_SESSIONS are open, also remove the session that was idle for the
        longest time, to make room for a new one."""
        now = time.monotonic()
        open_sessions = sorted((item for item in self._sessions.items() if item[1].deadline >= now), key=_get_deadline)
        self._sessions = dict(open_sessions[-MAX_SESSIONS + 1 :])


def _is_repeated(use: _TokenUse, page_key: str) -> bool:
    """Return whether the page that used a token sends it again within REPEAT_SECONDS."""
    is_same_page = bool(page_key) and hmac.compare_digest(use.page_key_hash, _hash(page_key))
    return is_same_page and time.monotonic() < use.repeat_deadline


def _get_deadline(item: tuple[str, _Session]) -> float:
    return item[1].deadline


def _hash(text: str) -> str:
    return sha256(text.encode(errors="surrogatepass")).hexdigest()


def _make_no_session_error(message: str) -> ServiceError:
    return ServiceError("NoSession", message, 401)
