"""Publishes messages of SNS topics to the targets that the configuration assigns to the topics."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.event_settings import EventTarget
from microjobs_orchestrator.local.outbox import Outbox, StoredEvent

logger = logging.getLogger(__name__)


class Topics:
    """The topics that have targets.

    Args:
        notify: called after each message, before the transaction is committed.
    """

    def __init__(self, outbox: Outbox, targets: Sequence[EventTarget], notify: Callable[[], None]) -> None:
        self._outbox = outbox
        self._targets = [target for target in targets if target.topic]
        self._notify = notify

    def publish(self, topic: str, message: Mapping[str, Any]) -> None:
        """Add a message to the outbox, as a part of the caller's transaction."""
        targets = [target for target in self._targets if target.topic in (topic, topic.rpartition(":")[2])]
        if not targets:
            logger.warning("a message to %s has no target: set topic in a table [[local.events]]", topic)
            return
        content = json.dumps(message)
        self._outbox.add(StoredEvent(target.key, content) for target in targets)
        self._notify()
