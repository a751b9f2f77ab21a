"""Downloads of files that are too large for a script of a page. A script requests an address, which works once."""

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from werkzeug import Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.exchange import Exchange
from microjobs_orchestrator.local.logs import LogStore, LogStream
from microjobs_orchestrator.local.protocols.aws_json import parse_object

PATH = "downloads/"
LIFETIME_SECONDS = 60.0
MAX_TICKETS = 100
BLOCK_BYTES = 1 << 18


@dataclass(frozen=True)
class _Ticket:
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
        """Return the path of a new download below the console's operations.

        Args:
            cookie: only this session can use the path.
            respond: makes the response with the content.
        """
        name, now = secrets.token_urlsafe(32), time.monotonic()
        with self._lock:
            valid = [item for item in self._tickets.items() if item[1].deadline > now]
            self._tickets = dict(valid[-MAX_TICKETS + 1 :])
            self._tickets[name] = _Ticket(cookie, now + LIFETIME_SECONDS, respond)
        return Response(json.dumps({"path": f"{PATH}{name}"}), content_type="application/json")

    def open(self, name: str, cookie: str) -> Response:
        """Return the content of a download.

        Raises:
            ServiceError: the path was used, has expired, or belongs to another session.
        """
        with self._lock:
            ticket = self._tickets.get(name)
            if ticket is None or ticket.cookie != cookie or ticket.deadline < time.monotonic():
                raise ServiceError("NotFound", "this download was started or has expired: start it again", 404)
            del self._tickets[name]
        return ticket.respond()

    def add_log(self, exchange: Exchange, cookie: str) -> Response:
        """Return the path of a download of a log stream: the members `group` and `stream` name it."""
        members = parse_object("logs", exchange.request.get_data())
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
    """Yield all output of a host, in blocks."""
    block = bytearray()
    for event in stream.events():
        block += event.text + (b"\n" if event.is_whole else b"")
        if len(block) >= BLOCK_BYTES:
            yield bytes(block)
            block.clear()
    yield bytes(block)
