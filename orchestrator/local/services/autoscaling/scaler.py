"""Changes the capacity of scalable targets, in a thread that runs while there are targets."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.services.autoscaling import records
from microjobs_orchestrator.local.services.autoscaling.policies import SHORT_PERIOD_SECONDS, Proposal, TargetTracking
from microjobs_orchestrator.local.services.autoscaling.records import TARGET_KIND
from microjobs_orchestrator.local.state import Record

logger = logging.getLogger(__name__)

LAST_SCALE_OUT, LAST_SCALE_IN = "LastScaleOut", "LastScaleIn"
"""Keys of a target's internal state. The values are the times of the last activity that added capacity, and of the last
activity that removed capacity, in seconds since 1970."""

CallOperation = Callable[[str, Mapping[str, Any]], object]
"""Performs an operation of SageMaker. Raises ServiceError."""


class Scaler:
    """Evaluates the policies of all targets. Methods may be called from any thread."""

    def __init__(self, context: Context, call_operation: CallOperation) -> None:
        self._context = context
        self._call_operation = call_operation
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread if there are targets and the thread is not running yet."""
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
        interval = max(0.5, SHORT_PERIOD_SECONDS / 2 / self._context.settings.autoscaling_speed)
        while not self._closing.wait(interval) and self._should_continue():
            for target in records.list_targets(self._context.state):
                try:
                    self._evaluate(target, time.time())
                except Exception:
                    logger.exception("%s could not be scaled", target.name)

    def _should_continue(self) -> bool:
        """Return whether there are targets. If there are none, forget this thread, so that `start` can start another
        thread later."""
        with self._lock:
            has_targets = bool(records.list_targets(self._context.state))
            if not has_targets:
                self._thread = None
        return has_targets

    def _evaluate(self, target: Record, now: float) -> None:
        """Change the capacity of a target if its limits or its policies require it."""
        capacity = records.get_scalable_resource(target).read(self._context.state)
        if capacity is None:  # the endpoint or the component does not exist any more
            records.delete_target(self._context.state, target.name)
        elif capacity.can_change:
            proposal = self._limit(target, capacity.count, self._propose(target, capacity.count, now))
            if proposal.capacity != capacity.count and not _must_wait(target, capacity.count, proposal, now):
                self._scale(target, capacity.count, proposal, now)

    def _propose(self, target: Record, count: int, now: float) -> Proposal:
        """Return the highest proposal of the policies. It is less than the capacity only if all policies propose
        less."""
        no_change = Proposal(count, cause="", cooldown=0.0)
        if count == 0:  # without copies, a metric per copy has no value
            return no_change
        proposals = [
            self._make_policy(policy).propose(
                self._context.metrics, records.get_scalable_resource(target), count, policy.modified, now
            )
            for policy in records.list_policies(self._context.state, target.name)
        ]
        return max(proposals, key=lambda proposal: proposal.capacity, default=no_change)

    def _make_policy(self, policy: Record) -> TargetTracking:
        config = policy.description["TargetTrackingScalingPolicyConfiguration"]
        return TargetTracking(policy.description["PolicyName"], config, self._context.settings.autoscaling_speed)

    def _limit(self, target: Record, count: int, proposal: Proposal) -> Proposal:
        minimum, maximum = target.description["MinCapacity"], target.description["MaxCapacity"]
        if not minimum <= count <= maximum:
            capacity = min(max(count, minimum), maximum)
            return Proposal(capacity, cause=f"the capacity must be from {minimum} to {maximum}", cooldown=0.0)
        return Proposal(min(max(proposal.capacity, minimum), maximum), proposal.cause, proposal.cooldown)

    def _scale(self, target: Record, count: int, proposal: Proposal, now: float) -> None:
        operation, request = records.get_scalable_resource(target).make_update(proposal.capacity)
        try:
            self._call_operation(operation, request)
        except ServiceError as error:
            # for example, another request has just changed the endpoint; the next evaluation tries again
            logger.warning("%s could not be scaled to %d: %s", target.name, proposal.capacity, error.message)
            return
        logger.info("%s was scaled from %d to %d: %s", target.name, count, proposal.capacity, proposal.cause)
        state, key = self._context.state, LAST_SCALE_OUT if proposal.capacity > count else LAST_SCALE_IN
        with state.transaction():
            state.update(TARGET_KIND, target.name, {}, internal={key: now})
            records.add_activity(state, target, proposal.capacity, proposal.cause, now)


def _must_wait(target: Record, count: int, proposal: Proposal, now: float) -> bool:
    """Return whether a proposal must wait: scaling in its direction is suspended, or the cooldown has not ended.

    A proposal that adds capacity waits only for the cooldown after the last activity that added capacity. A proposal
    that removes capacity waits for the cooldown after the last activity of either direction.
    """
    is_out = proposal.capacity > count
    name = f"DynamicScaling{'Out' if is_out else 'In'}Suspended"
    keys: Sequence[str] = (LAST_SCALE_OUT,) if is_out else (LAST_SCALE_OUT, LAST_SCALE_IN)
    last_activity = max(target.internal.get(key, 0.0) for key in keys)
    return bool(target.description["SuspendedState"][name]) or now < last_activity + proposal.cooldown
