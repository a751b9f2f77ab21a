"""Downloads of files that are too large for the memory of a page's script.

The script requests an address, which works once, and the browser stores the file from this address.
"""

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from werkzeug import Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.request_state import RequestState
from microjobs_orchestrator.local.logs import LogStore, LogStream
from microjobs_orchestrator.local.protocols.aws_json import parse_object

DOWNLOADS_PATH = "downloads/"
LIFETIME_SECONDS = 60.0
"""Seconds in which the browser must start a download after the page has requested it."""
MAX_TICKETS = 100
"""Maximum number of downloads that wait for their browsers. A new download beyond this limit removes the oldest one."""
BLOCK_BYTES = 1 << 18


@dataclass(frozen=True)
class _Ticket:
    """A download that the browser has not started yet."""

    cookie: str
    """The cookie of the session that requested the download."""
    deadline: float
    respond: Callable[[], Response]


class Downloads:
    """Downloads that browsers have not started yet. Methods may be called from any thread."""

    def __init__(self, logs: LogStore) -> None:
        self._logs = logs
        self._tickets: dict[str, _Ticket] = {}
        self._lock = threading.Lock()

    def add(self, cookie: str, respond: Callable[[], Response]) -> Response:
        """Add a download. Return a response with its one-time path, relative to the path of the console's operations.

        Args:
            cookie: the cookie of the only session that can use the path.
            respond: makes the response with the content.
        """
        name, now = secrets.token_urlsafe(32), time.monotonic()
        with self._lock:
            valid_tickets = [item for item in self._tickets.items() if item[1].deadline > now]
            self._tickets = dict(valid_tickets[-MAX_TICKETS + 1 :])
            self._tickets[name] = _Ticket(cookie, now + LIFETIME_SECONDS, respond)
        return Response(json.dumps({"path": f"{DOWNLOADS_PATH}{name}"}), content_type="application/json")

    def open(self, name: str, cookie: str) -> Response:
        """Return the content of a download.

        Raises:
            ServiceError: the path was used, has expired, or belongs to another session.
        """
        with self._lock:
            ticket = self._tickets.get(name)
            if ticket is None or ticket.cookie != cookie or ticket.deadline < time.monotonic():
                raise ServiceError(
                    "NotFound", "this address was already used or has expired: request a new download", 404
                )
            del self._tickets[name]
        return ticket.respond()

    def add_log(self, state: RequestState, cookie: str) -> Response:
        """Add a download of the log stream that the members `group` and `stream` name. Return the response of `add`."""
        members = parse_object("logs", state.request.get_data())
        group, name = members.get("group"), members.get("stream")
        stream = self._logs.stream(group, name) if isinstance(group, str) and isinstance(name, str) else None
        if stream is None:
            raise ServiceError("ResourceNotFoundException", f"there is no log stream {name!r:.100} in {group!r:.100}")
        return self.add(cookie, lambda: make_attachment(_read_lines(stream), f"{stream.path.name}.log", "text/plain"))


def make_attachment(content: Iterable[bytes], name: str, content_type: str) -> Response:
    """Return a response that browsers store in a file instead of showing it."""
    disposition = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    return Response(content, headers={"Content-Disposition": disposition}, content_type=content_type)


def _read_lines(stream: LogStream) -> Iterator[bytes]:
    """Yield all lines of a log stream, in blocks."""
    block = bytearray()
    for event in stream.events():
        block += event.text + (b"\n" if event.is_whole else b"")
        if len(block) >= BLOCK_BYTES:
            yield bytes(block)
            block.clear()
    yield bytes(block)
