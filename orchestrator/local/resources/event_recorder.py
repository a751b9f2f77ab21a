"""Converts each change of a resource to the events that the configured targets receive."""

import json
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from microjobs_orchestrator.local.event_patterns import matches
from microjobs_orchestrator.local.event_settings import EventTarget
from microjobs_orchestrator.local.identity import ACCOUNT
from microjobs_orchestrator.local.outbox import StoredEvent
from microjobs_orchestrator.local.resources.operations import Operations
from microjobs_orchestrator.local.resources.state_changes import ResourceEvent
from microjobs_orchestrator.local.state import Record
from microjobs_orchestrator.local.values import to_valid_json

logger = logging.getLogger(__name__)


class EventRecorder:
    """Makes events. The state calls `record` in the transaction that changes the resource.

    Args:
        notify: a function that is called after a change with events for at least one target, but before the transaction
            is committed.
    """

    def __init__(
        self,
        all_operations: Sequence[Operations],
        targets: Sequence[EventTarget],
        region: str,
        notify: Callable[[], None],
    ) -> None:
        self._operations = {
            kind: operations
            for operations in all_operations
            for kind in (operations.kind.arn_type, *operations.other_event_kinds)
        }
        # A target with a topic receives the topic's messages in place of events.
        self._targets = [target for target in targets if not target.topic]
        self._region, self._notify = region, notify

    def record(self, before: Record | None, after: Record | None) -> list[StoredEvent]:
        """Return the events of a change. An error is logged: it must not prevent the change."""
        record = after or before
        operations = self._operations.get(record.kind) if record else None
        if operations is None:
            return []
        try:
            new_events = [self._make_event(event) for event in operations.make_events(before, after)]
            stored_events = list(self._assign_targets(new_events))  # an event without a target is not stored
        except Exception:
            logger.exception("could not make the events about a change of %s", record.arn if record else "")
            return []
        if stored_events:
            self._notify()
        return stored_events

    def _make_event(self, event: ResourceEvent) -> dict[str, Any]:
        """Return an event in the form of EventBridge."""
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": event.detail_type,
            "source": "aws.sagemaker",
            "account": ACCOUNT,
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": self._region,
            "resources": list(event.arns),
            "detail": to_valid_json(dict(event.detail)),
        }

    def _assign_targets(self, events: Sequence[dict[str, Any]]) -> Iterator[StoredEvent]:
        """Yield each event once for each target whose pattern it matches."""
        for event in events:
            for target in self._targets:
                if matches(target.pattern, event):
                    yield StoredEvent(target.key, json.dumps(event))
