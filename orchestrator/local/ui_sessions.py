"""Sessions in which a browser shows the web pages of a program, such as MLflow.

Each session has a random host name below `localhost`, which browsers resolve to this machine. Therefore, its pages have
another origin than the console, and cannot read the console's secret.

A browser sends a cookie to every port of the cookie's host name. So another user's program on this machine could
receive the cookie if it lured the browser to this host name. It cannot do this, because it does not know the name.
"""

import hmac
import re
import secrets
import threading
import time
from dataclasses import dataclass
from hashlib import sha256

from microjobs_orchestrator.local.errors import ServiceError

MAX_SESSIONS = 64
"""Maximum number of sessions. A new session beyond this limit ends the oldest session."""
REPEAT_SECONDS = 10.0
"""Seconds in which a browser may use an address again if the response was lost."""
HOST_PATTERN = re.compile(r"(?P<label>[0-9a-f]{32})\.(?P<program>[a-z]+)\.localhost(:[0-9]{1,5})?")


@dataclass
class _Session:
    arn: str
    session_seconds: float
    """The time for which the cookie is valid."""
    token_hash: str
    token_deadline: float
    """The end of the token's validity, in seconds of the monotonic clock."""
    deadline: float
    """The end of the session, in seconds of the monotonic clock."""
    cookie_hash: str = ""
    """Empty before the first use of the token."""


class UiSessions:
    """All sessions. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()

    def offer(self, arn: str, link_seconds: float, session_seconds: float) -> tuple[str, str]:
        """Return the label of a new host name, and a token that opens one session under this host name.

        Args:
            arn: the resource that the session shows.
            link_seconds: the time for which the token is valid.
            session_seconds: the time for which the session lasts.
        """
        label, token = secrets.token_hex(16), secrets.token_urlsafe(32)
        with self._lock:
            self._remove_old_sessions()
            deadline = time.monotonic() + link_seconds
            self._sessions[label] = _Session(
                arn, session_seconds, _hash(token), token_deadline=deadline, deadline=deadline
            )
        return label, token

    def open(self, label: str, token: str) -> tuple[str, float]:
        """Return the cookie of a session that a token opens, and the seconds that the session lasts.

        The token can be used again until REPEAT_SECONDS have passed or a request with the cookie arrives, whichever is
        first. Each use replaces the cookie of the previous use, so a token never gives two browsers access.

        Raises:
            ServiceError: the token is wrong, was used, or has expired.
        """
        now, cookie = time.monotonic(), secrets.token_urlsafe(32)
        with self._lock:
            session = self._sessions.get(label)
            if session is None or session.token_deadline <= now or not _has_hash(token, session.token_hash):
                raise _make_error("this address was used, or has expired")
            if not session.cookie_hash:
                session.token_deadline = min(session.token_deadline, now + REPEAT_SECONDS)
            session.cookie_hash, session.deadline = _hash(cookie), now + session.session_seconds
            return cookie, session.session_seconds

    def find(self, label: str, cookie: str) -> str:
        """Return the ARN of a session's resource.

        Raises:
            ServiceError: there is no such session, or it has expired.
        """
        now = time.monotonic()
        with self._lock:
            session = self._sessions.get(label)
            if session is None or session.deadline <= now or not _has_hash(cookie, session.cookie_hash):
                raise _make_error("this browser has no session")
            session.token_deadline = now  # the token becomes invalid, because the browser has received the cookie
            return session.arn

    def _remove_old_sessions(self) -> None:
        now = time.monotonic()
        unexpired_sessions = [item for item in self._sessions.items() if item[1].deadline > now]
        self._sessions = dict(unexpired_sessions[-MAX_SESSIONS + 1 :])


def _make_error(problem: str) -> ServiceError:
    return ServiceError(
        "AccessDeniedException", f"{problem}: request another address with a CreatePresigned… operation", 401
    )


def _has_hash(secret: str, expected_hash: str) -> bool:
    return hmac.compare_digest(expected_hash, _hash(secret))


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
