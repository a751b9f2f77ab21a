"""Writes captured exchanges to a bucket. They wait in a buffer in memory, which a thread stores as JSON Lines objects.

Requests do not wait for the disk. A killed server loses the exchanges of the last `FLUSH_SECONDS`; objects are always
complete.
"""

import json
import logging
import random
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import NamedTuple

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle import outputs
from microjobs_orchestrator.local.resources.endpoints.captures import CaptureSettings
from microjobs_orchestrator.local.resources.endpoints.exchanges import Exchange
from microjobs_orchestrator.local.resources.models.client import Body
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.s3.store import ObjectStore

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0
"""Seconds from the first exchange in an empty buffer until the buffer is stored."""
FLUSH_BYTES = 4 << 20
"""If the buffer contains this number of bytes, it is stored without waiting for FLUSH_SECONDS."""
MAX_BUFFERED_BYTES = 64 << 20
"""Maximum number of bytes in the buffer. An exchange that does not fit is lost: either the disk is too slow, or the
exchange is too large."""
OVERHEAD_BYTES = 1 << 10
"""Memory of an exchange in the buffer, in addition to its bodies."""

_random = random.SystemRandom().random


class _CapturedExchange(NamedTuple):
    settings: CaptureSettings
    exchange: Exchange
    time: float
    """Seconds since 1970."""

    @property
    def folder(self) -> str:
        """The S3 URI of the object's folder."""
        hour, component = time.strftime("%Y/%m/%d/%H", time.gmtime(self.time)), self.exchange.request.target.component
        names = [self.exchange.endpoint, self.exchange.variant, *([component] if component else []), hour]
        return outputs.join_key(self.settings.destination, "/".join(names))


class CaptureWriter:
    """Captures exchanges of one endpoint. Methods may be called from any thread."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._buffer: list[_CapturedExchange] = []
        self._byte_count = self._lost_count = 0
        self._lock, self._flush_lock = threading.Lock(), threading.Lock()
        self._has_exchanges, self._must_flush = threading.Event(), threading.Event()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def capture(self, settings: CaptureSettings, exchange: Exchange) -> None:
        """Add an exchange to the buffer, if the model has responded without an error and the exchange is sampled."""
        if exchange.status is None or exchange.status >= HTTPStatus.MULTIPLE_CHOICES:
            return
        if settings.percentage < 100 and _random() * 100 >= settings.percentage:
            return
        exchange = _load_bodies(exchange)
        size = _get_size(exchange)
        with self._lock:
            if self._byte_count + size > MAX_BUFFERED_BYTES:
                self._lost_count += 1
            else:
                self._buffer.append(_CapturedExchange(settings, exchange, time.time()))
                self._byte_count += size
            self._wake_thread()
        if self._is_closed:  # the thread has ended
            self.flush()

    def _wake_thread(self) -> None:
        """Let the thread store the buffer: immediately if it has FLUSH_BYTES, otherwise after FLUSH_SECONDS."""
        if self._thread is None and not self._is_closed:
            self._thread = threading.Thread(target=self._run, name="data capture", daemon=True)
            self._thread.start()
        if self._byte_count >= FLUSH_BYTES:
            self._must_flush.set()
        self._has_exchanges.set()

    def _run(self) -> None:
        while not self._is_closed:
            self._has_exchanges.wait()
            self._must_flush.wait(FLUSH_SECONDS)
            self.flush()

    def flush(self) -> None:
        """Store the buffer."""
        with self._flush_lock:
            with self._lock:
                buffer, self._buffer = self._buffer, []
                lost_count, self._lost_count, self._byte_count = self._lost_count, 0, 0
                if not self._is_closed:
                    self._has_exchanges.clear()
                    self._must_flush.clear()
            if lost_count:
                message = (
                    "data capture lost exchanges (%d), because the disk is too slow for them, or they are too large"
                )
                logger.warning(message, lost_count)
            exchanges_by_folder = defaultdict(list)
            for captured_exchange in buffer:
                exchanges_by_folder[captured_exchange.folder].append(captured_exchange)
            for folder, items in exchanges_by_folder.items():
                self._store_object(f"{folder}/{uuid.uuid4()}.jsonl", items)

    def _store_object(self, uri: str, items: Sequence[_CapturedExchange]) -> None:
        try:
            with self._store.new_file() as path:
                with path.open("w", encoding="utf-8") as file:
                    for settings, exchange, end_time in items:
                        file.write(f"{json.dumps(settings.make_record(exchange, end_time))}\n")
                self._store.put(*parse_uri(uri), path)
        except (OSError, ServiceError) as error:  # the disk may be full, or the bucket may be deleted
            logger.warning("data capture lost exchanges (%d), because %s cannot be stored: %s", len(items), uri, error)

    def close(self) -> None:
        """Store the buffer, and end the thread."""
        with self._lock:
            self._is_closed = True
            self._must_flush.set()
            self._has_exchanges.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()


def _load_bodies(exchange: Exchange) -> Exchange:
    """Return an exchange whose bodies are in memory. A body that is too large for the buffer is read only
    in part, because the exchange is lost."""
    if not callable(exchange.request.body) and not callable(exchange.body):
        return exchange
    return replace(
        exchange,
        request=replace(exchange.request, body=_read(exchange.request.body)),
        body=_read(exchange.body),
    )


def _read(body: Body) -> bytes | None:
    if not callable(body):
        return body
    content = bytearray()
    for part in body():
        content += part
        if len(content) > MAX_BUFFERED_BYTES:
            break
    return bytes(content)


def _get_size(exchange: Exchange) -> int:
    bodies = (exchange.request.body, exchange.body)
    return OVERHEAD_BYTES + sum(len(body) for body in bodies if isinstance(body, bytes))
