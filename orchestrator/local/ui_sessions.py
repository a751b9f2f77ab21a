"""Sessions of browsers with web pages of programs, such as MLflow, on host names of their own.

Each session has a random host name below `localhost`, which browsers resolve to this machine. So its pages have another
origin than the console, and cannot read the console's secret. A browser sends cookies to all ports of a host name.
Programs of other users do not know this host name, so they cannot receive its cookie.
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
"""A new session beyond this limit ends the oldest session."""
HOST = re.compile(r"(?P<label>[0-9a-f]{32})\.(?P<program>[a-z]+)\.localhost(:[0-9]{1,5})?")


@dataclass
class _Session:
    arn: str
    secret: str
    """The hash of the token before the first request, and of the cookie after it."""
    deadline: float
    session_seconds: float
    is_open: bool = False


class UiSessions:
    """All sessions. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()

    def offer(self, arn: str, link_seconds: float, session_seconds: float) -> tuple[str, str]:
        """Return the label of a new host name, and a token that opens a session on this host once.

        Args:
            arn: the resource that the session shows.
            link_seconds: the time in which the token is valid.
        """
        label, token = secrets.token_hex(16), secrets.token_urlsafe(32)
        with self._lock:
            self._remove_old()
            self._sessions[label] = _Session(arn, _hash(token), time.monotonic() + link_seconds, session_seconds)
        return label, token

    def open(self, label: str, token: str) -> tuple[str, float]:
        """Return the cookie of a session that a token opens, and the seconds that the session lasts.

        Raises:
            ServiceError: the token is wrong, was used, or has expired.
        """
        with self._lock:
            session = self._find(label, token, is_open=False)
            cookie = secrets.token_urlsafe(32)
            session.secret, session.is_open = _hash(cookie), True
            session.deadline = time.monotonic() + session.session_seconds
            return cookie, session.session_seconds

    def find(self, label: str, cookie: str) -> str:
        """Return the ARN of a session's resource.

        Raises:
            ServiceError: there is no such session, or it has expired.
        """
        with self._lock:
            return self._find(label, cookie, is_open=True).arn

    def _find(self, label: str, secret: str, *, is_open: bool) -> _Session:
        session = self._sessions.get(label)
        is_valid = session is not None and session.is_open == is_open and session.deadline > time.monotonic()
        if session is None or not is_valid or not hmac.compare_digest(session.secret, _hash(secret)):
            problem = "this browser has no session" if is_open else "this address was used, or has expired"
            remedy = "request another address with a CreatePresigned… operation"
            raise ServiceError("AccessDeniedException", f"{problem}: {remedy}", 401)
        return session

    def _remove_old(self) -> None:
        now = time.monotonic()
        live = [item for item in self._sessions.items() if item[1].deadline > now]
        self._sessions = dict(live[-MAX_SESSIONS + 1 :])


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
