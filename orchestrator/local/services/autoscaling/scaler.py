"""Changes the capacity of scalable targets, in a thread that runs while there are targets."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.services.autoscaling import records
from microjobs_orchestrator.local.services.autoscaling.policies import SHORT_PERIOD, Proposal, TargetTracking
from microjobs_orchestrator.local.services.autoscaling.records import TARGET_KIND
from microjobs_orchestrator.local.state import Record

logger = logging.getLogger(__name__)

LAST_OUT, LAST_IN = "LastScaleOut", "LastScaleIn"
"""Keys of a target's internal state: the times of its last activities, in seconds since 1970."""

Invoke = Callable[[str, Mapping[str, Any]], object]
"""Performs an operation of SageMaker. Raises ServiceError."""


class Scaler:
    """Evaluates the policies of all targets. Methods may be called from any thread."""

    def __init__(self, context: Context, invoke: Invoke) -> None:
        self._context = context
        self._invoke = invoke
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread if there are targets, unless it runs."""
        with self._lock:
            if self._thread is None and not self._closing.is_set() and records.list_targets(self._context.state):
                self._thread = threading.Thread(target=self._run, name="autoscaling", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        interval = max(0.5, SHORT_PERIOD / 2 / self._context.settings.autoscaling_speed)
        while not self._closing.wait(interval) and self._has_targets():
            for target in records.list_targets(self._context.state):
                try:
                    self._evaluate(target, time.time())
                except Exception:
                    logger.exception("%s could not be scaled", target.name)

    def _has_targets(self) -> bool:
        """Return whether there are targets. If there are none, `start` starts another thread later."""
        with self._lock:
            has_targets = bool(records.list_targets(self._context.state))
            if not has_targets:
                self._thread = None
        return has_targets

    def _evaluate(self, target: Record, now: float) -> None:
        """Change the capacity of a target if its limits or its policies require it."""
        capacity = records.get_scalable(target).read(self._context.state)
        if capacity is None:  # the endpoint or the component was deleted
            records.delete_target(self._context.state, target.name)
        elif capacity.is_steady:
            proposal = self._limit(target, capacity.count, self._propose(target, capacity.count, now))
            if proposal.count != capacity.count and not _is_held(target, capacity.count, proposal, now):
                self._scale(target, capacity.count, proposal, now)

    def _propose(self, target: Record, count: int, now: float) -> Proposal:
        """Return the proposal of all policies: the highest one; less capacity only if all of them propose less."""
        unchanged = Proposal(count, "", 0.0)
        if count == 0:  # a metric per copy has no value without copies
            return unchanged
        proposals = [
            self._make_policy(policy).propose(
                self._context.metrics, records.get_scalable(target), count, policy.modified, now
            )
            for policy in records.list_policies(self._context.state, target.name)
        ]
        return max(proposals, key=lambda proposal: proposal.count, default=unchanged)

    def _make_policy(self, policy: Record) -> TargetTracking:
        config = policy.description["TargetTrackingScalingPolicyConfiguration"]
        return TargetTracking(policy.description["PolicyName"], config, self._context.settings.autoscaling_speed)

    def _limit(self, target: Record, count: int, proposal: Proposal) -> Proposal:
        minimum, maximum = target.description["MinCapacity"], target.description["MaxCapacity"]
        if not minimum <= count <= maximum:
            limited = min(max(count, minimum), maximum)
            return Proposal(limited, f"the capacity must be from {minimum} to {maximum}", 0.0)
        return Proposal(min(max(proposal.count, minimum), maximum), proposal.cause, proposal.cooldown)

    def _scale(self, target: Record, count: int, proposal: Proposal, now: float) -> None:
        operation, request = records.get_scalable(target).make_update(proposal.count)
        try:
            self._invoke(operation, request)
        except ServiceError as error:  # another request has just changed the endpoint; the next evaluation repeats it
            logger.warning("%s could not be scaled to %d: %s", target.name, proposal.count, error.message)
            return
        logger.info("%s was scaled from %d to %d: %s", target.name, count, proposal.count, proposal.cause)
        state, key = self._context.state, LAST_OUT if proposal.count > count else LAST_IN
        with state.transaction():
            state.update(TARGET_KIND, target.name, {}, internal={key: now})
            records.add_activity(state, target, proposal.count, proposal.cause, now)


def _is_held(target: Record, count: int, proposal: Proposal, now: float) -> bool:
    """Return whether scaling is suspended in the direction of a proposal, or in its cooldown.

    Only an activity that added capacity delays the next one that adds capacity.
    """
    is_out = proposal.count > count
    name = f"DynamicScaling{'Out' if is_out else 'In'}Suspended"
    keys: Sequence[str] = (LAST_OUT,) if is_out else (LAST_OUT, LAST_IN)
    last = max(target.internal.get(key, 0.0) for key in keys)
    return bool(target.description["SuspendedState"][name]) or now < last + proposal.cooldown
