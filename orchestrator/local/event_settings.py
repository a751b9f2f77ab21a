"""The targets of events, as the configuration describes them.

[[local.events]]
file = "events.jsonl"

[[local.events]]
command = ["python", "on_event.py"]
timeout = 30
pattern = { detail = { ModelApprovalStatus = ["Approved"] } }

[[local.events]]
webhook = "http://127.0.0.1:8000/events"

[[local.events]]
queue = "job-events"
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit

from microjobs_orchestrator.local.event_patterns import check_pattern
from microjobs_orchestrator.local.identity import QUEUE_NAME_PATTERN

DESTINATIONS = ("file", "command", "webhook", "queue")
MAX_TIMEOUT = 300.0


@dataclass(frozen=True)
class EventTarget:
    """One destination of events."""

    file: str = ""
    """File to which events are appended, one per line."""
    command: Sequence[str] = field(default_factory=list)
    """A program and its arguments. The program runs once per event, with the event on its standard input."""
    webhook: str = ""
    """Address to which events are posted."""
    queue: str = ""
    """Name of an SQS queue of the local server, which receives each event as a message."""
    topic: str = ""
    """Name or ARN of an SNS topic, whose messages the target receives in place of events."""
    pattern: Mapping[str, Any] = field(default_factory=dict)
    """Pattern in EventBridge's syntax. An empty pattern selects all events."""
    timeout: float = 10.0
    """Seconds that the command, or one request to the webhook, may take."""
    allow_remote: bool = False
    """Whether the webhook may be on another machine."""

    @property
    def key(self) -> str:
        """The name under which undelivered events of this target are stored."""
        content = json.dumps({item.name: getattr(self, item.name) for item in fields(self)}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def description(self) -> str:
        """The destination, for messages. It contains no argument of a command and no query of an address."""
        if self.queue:
            return f"queue {self.queue}"
        url = urlsplit(self.webhook)
        return self.file or (self.command[0] if self.command else f"{url.scheme}://{url.netloc}{url.path}")


def read_targets(tables: Sequence[Any]) -> list[EventTarget]:
    """Return the targets that the configuration describes.

    Raises:
        ValueError: a table is invalid; the message names the setting and the value.
    """
    targets = [_read_target(table) for table in tables]
    keys = [target.key for target in targets]
    if duplicates := [target.description for target in targets if keys.count(target.key) > 1]:
        raise ValueError(f"[[local.events]] has {duplicates[0]!r} twice with the same settings: remove one")
    return targets


def _read_target(table: Any) -> EventTarget:
    if not isinstance(table, Mapping):
        raise ValueError(f"[[local.events]] must be tables, not {table!r}")
    defaults = {item.name: getattr(EventTarget(), item.name) for item in fields(EventTarget)}
    for name, value in table.items():
        if name not in defaults:
            raise ValueError(f"[[local.events]] has no setting {name!r}; the settings are {', '.join(defaults)}")
        is_number = name == "timeout" and type(value) is int
        if type(value) is not type(defaults[name]) and not is_number:
            raise ValueError(f"[[local.events]] {name} has an invalid value: {value!r}")
    target = EventTarget(**table)
    _check_target(target)
    return target


def _check_target(target: EventTarget) -> None:
    if sum(bool(getattr(target, name)) for name in DESTINATIONS) != 1:
        raise ValueError(f"each [[local.events]] needs exactly one of {', '.join(DESTINATIONS)}")
    _check_file_and_command(target)
    if not 0 < target.timeout <= MAX_TIMEOUT:
        raise ValueError(
            f"[[local.events]] timeout {target.timeout!r} must be more than 0 and at most {MAX_TIMEOUT:g} seconds"
        )
    if target.queue and not QUEUE_NAME_PATTERN.fullmatch(target.queue):
        raise ValueError(f"[[local.events]] queue {target.queue!r} must be the name of a queue, such as job-events")
    check_pattern(target.pattern)
    if target.topic and target.pattern:
        raise ValueError("[[local.events]] topic and pattern cannot be combined: a pattern selects events")
    if target.webhook:
        _check_webhook(target)


def _check_file_and_command(target: EventTarget) -> None:
    if "\0" in target.file:
        raise ValueError(f"[[local.events]] file {target.file!r} must not contain a null character")
    words: Sequence[Any] = target.command
    if not all(isinstance(word, str) and "\0" not in word for word in words):
        raise ValueError(f"[[local.events]] command must be a list of strings, not {target.command!r}")


def _check_webhook(target: EventTarget) -> None:
    if (url := _parse_webhook(target.webhook)) is None:
        raise ValueError(
            f"[[local.events]] webhook {target.webhook!r} must be an address such as http://127.0.0.1:8000/"
        )
    if not target.allow_remote and not _is_loopback(url):
        raise ValueError(
            f"[[local.events]] webhook {target.webhook!r} is not on this machine: use 127.0.0.1, or set allow_remote"
        )


def _parse_webhook(address: str) -> SplitResult | None:
    if not re.fullmatch(r"https?://[!-?A-~]+", address):  # the pattern allows printable ASCII characters except @
        return None
    try:
        url = urlsplit(address)
        is_complete = bool(url.hostname) and url.port != 0
        return url if is_complete else None
    except ValueError:  # the port may be too large, such as 99999
        return None


def _is_loopback(url: SplitResult) -> bool:
    if url.hostname == "localhost":
        return True
    try:
        return ip_address(url.hostname or "").is_loopback
    except ValueError:
        return False
