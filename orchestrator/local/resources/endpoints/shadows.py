"""Shadow variants: they receive copies of requests, and their responses are dropped.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-shadow-deployment.html
"""

import random
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.resources.endpoints.deployments import SHADOWS, VARIANT_WEIGHT, VARIANTS, Deployment
from microjobs_orchestrator.local.resources.endpoints.exchanges import Exchange, InferenceRequest, Observer, Timer
from microjobs_orchestrator.local.resources.endpoints.replica import Replica
from microjobs_orchestrator.local.resources.endpoints.routing import ReplicaGroup
from microjobs_orchestrator.local.resources.models.client import NoResponseError, ResponseHead, TooLargeError

CONCURRENCY = 8
"""Maximum number of copies that are sent at the same time."""
MAX_PENDING_COPIES, MAX_PENDING_BYTES = 256, 64 << 20
"""Limits for the copies that wait or are being sent: their number, and the total size of their bodies. Requests beyond
these limits are not copied."""
NOTE_INTERVAL = 10.0
"""Seconds between two notes about requests that were not copied."""
TARGET_VARIANT_HEADER = "X-Amzn-SageMaker-Target-Variant"

_random = random.SystemRandom().random


@dataclass(frozen=True)
class Shadow:
    """The replicas of a shadow variant, and the share of the requests that they receive."""

    group: ReplicaGroup
    share: float
    """The share of the requests, from 0 to 1."""

    def samples(self, exchange: Exchange) -> bool:
        """Return whether the shadow receives a copy of a request."""
        return exchange.variant != self.group.variant and (self.share >= 1.0 or _random() < self.share)


def list_shadows(deployment: Deployment, groups: Mapping[str, ReplicaGroup]) -> list[Shadow]:
    """Return the shadows of a deployment. The share of a shadow is its weight, divided by the sum of the production
    variants' weights; at most 1."""
    total = sum(variant[VARIANT_WEIGHT] for variant in deployment[VARIANTS])
    weights = {variant["VariantName"]: variant[VARIANT_WEIGHT] for variant in deployment.get(SHADOWS, ())}
    return [
        Shadow(groups[variant], min(1.0, weight / total) if total else 1.0)
        for variant, weight in weights.items()
        if variant in groups
    ]


class ShadowCopier:
    """Sends copies of the requests of one endpoint to shadows. Methods may be called from any thread.

    Args:
        observe: receives the exchanges of the shadows.
    """

    def __init__(self, observe: Observer) -> None:
        self._observe = observe
        self._pool = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="shadow")
        self._lock = threading.Lock()
        self._pending_count = self._pending_bytes = self._dropped_count = 0
        self._next_note_time = 0.0
        self._is_closed = False

    def copy(self, shadow: Shadow, exchange: Exchange) -> None:
        """Enqueue a copy of an exchange's request, if the shadow samples the request and the limits allow another copy.

        A request whose body is read in parts is never copied.
        """
        body = exchange.request.body
        if callable(body) or not shadow.samples(exchange):
            return
        size = len(body or b"")
        with self._lock:
            if self._is_closed:
                return
            if self._pending_count >= MAX_PENDING_COPIES or self._pending_bytes + size > MAX_PENDING_BYTES:
                self._dropped_count += 1
                return
            self._pending_count += 1
            self._pending_bytes += size
            self._pool.submit(self._run, shadow.group.choose_replica(), exchange, size, Timer())

    def _run(self, replica: Replica, exchange: Exchange, size: int, timer: Timer) -> None:
        try:
            if not self._is_closed:
                self._send(replica, exchange, timer)
        finally:
            with self._lock:
                self._pending_count -= 1
                self._pending_bytes -= size
            self._note_dropped_copies(replica)

    def _send(self, replica: Replica, exchange: Exchange, timer: Timer) -> None:
        headers = {name: value for name, value in exchange.request.headers.items() if name != TARGET_VARIANT_HEADER}
        request = replace(exchange.request, headers=headers)
        timer.mark_sent()
        response, content = _invoke(replica, request)
        body = content.getvalue() if response is not None else None
        self._observe(timer.make_exchange(exchange.endpoint, replica, request, response, body))

    def _note_dropped_copies(self, replica: Replica) -> None:
        with self._lock:
            if not self._dropped_count or time.monotonic() < self._next_note_time:
                return
            dropped_count, self._dropped_count = self._dropped_count, 0
            self._next_note_time = time.monotonic() + NOTE_INTERVAL
        replica.note(f"requests were not copied to the shadow variant ({dropped_count}), because it is too slow")

    def close(self) -> None:
        """Send no more copies, and wait for the copies that are being sent."""
        with self._lock:
            self._is_closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)


def _invoke(replica: Replica, request: InferenceRequest) -> tuple[ResponseHead | None, BytesIO]:
    content = BytesIO()
    try:
        return replica.invoke(request, content), content
    except (NoResponseError, TooLargeError, ServiceError):
        return None, content
