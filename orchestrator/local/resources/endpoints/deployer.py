"""Keeps a resource with deployments in service: an endpoint, or an inference component.

The internal state contains the deployment, and the next deployment during an update. The thread of the resource reads
this state, and starts and stops replicas accordingly.
"""

import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from fractions import Fraction
from math import ceil, inf
from typing import Any, Protocol

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.kinds import Kind
from microjobs_orchestrator.local.lifecycle.attempt import remove_plan
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.events import Change, EventQueue, StopReason
from microjobs_orchestrator.local.lifecycle.hosts import FINISHED_GRACE_PERIOD, SHUTDOWN_GRACE_PERIOD
from microjobs_orchestrator.local.lifecycle.job import MAX_REASON_CHARACTERS
from microjobs_orchestrator.local.resources.endpoints.deployments import Deployment
from microjobs_orchestrator.local.resources.endpoints.fleets import Fleet, PlannedReplica, select_planned_replicas
from microjobs_orchestrator.local.resources.endpoints.replica import Replica
from microjobs_orchestrator.local.resources.endpoints.update_policies import UpdatePolicy, read_policy
from microjobs_orchestrator.local.resources.models.client import PRIMARY
from microjobs_orchestrator.local.resources.models.serving import StoppedError, UnhealthyError
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host
from microjobs_orchestrator.local.state import Record

logger = logging.getLogger(__name__)

DEPLOYMENT, NEXT_DEPLOYMENT, UPDATE_CONFIG = "Deployment", "NextDeployment", "UpdateConfig"
"""Keys of the internal state. The value of the last key is the DeploymentConfig of the update to the next
deployment."""

DRAIN_TIMEOUT = 60.0
"""Seconds until replaced replicas are stopped, even if they still process requests. InvokeEndpoint has the same time
limit, so that only longer requests, such as response streams, are cut off."""

ALARM_INTERVAL = 1.0
"""Seconds after which the alarms of an update are evaluated again."""


class Deployable(Protocol):
    """A resource that has deployments."""

    def list_planned_replicas(self, deployment: Deployment) -> Sequence[PlannedReplica]:
        """Return the replicas that a deployment should have."""

    def get_capacity(self, deployment: Deployment) -> int:
        """Return the number of instances or copies that the largest variant of a deployment should have."""

    def put_in_service(self, fleet: Fleet, next_fleet: Fleet | None = None) -> Mapping[str, Any]:
        """Send requests to replicas from now on. Return members of the description.

        Args:
            next_fleet: during the steps of an update, the replicas of the next deployment.
        """

    def closing(self) -> AbstractContextManager[None]:
        """Return a context manager for the block that stops the replicas.

        No request starts during the block. The end of the block waits until all requests have ended.
        """

    def delete_record(self) -> None: ...


class Deployer:
    """Runs the deployments of one resource, from its creation until it is deleted or the server stops."""

    def __init__(self, context: Context, kind: Kind, name: str, resource: Deployable) -> None:
        self.plan_name = f"{kind.arn_type}/{name}"
        """The beginning of the names of the plans: each replica has its own plan."""
        self.events = EventQueue()
        self._context = context
        self._kind = kind
        self._has_rollback_status = kind.lifecycle is not None and "RollingBack" in kind.lifecycle.statuses
        self._name = name
        self._resource = resource
        self._fleet = Fleet({}, {})
        self._next_fleet: Fleet | None = None
        """The replicas of the next deployment during the steps of an update."""
        self._description: Mapping[str, Any] = {}
        """The members of the description about the serving replicas."""
        self._has_started = threading.Event()
        """Set when the first deployment has started or failed, or when the resource ends."""

    def wait_for_start(self, timeout: float) -> None:
        """Wait until the first deployment has started or failed, at most `timeout` seconds."""
        self._has_started.wait(timeout)

    def recover(self, hosts: Sequence[Host]) -> None:
        """Resume with the hosts that an earlier server started; start the other hosts again."""
        if hosts:
            plan_names = self._list_plan_names(self._read_internal()[DEPLOYMENT])
            for name in self._context.runtime.find_hosts():
                # A plan that is not in the deployment belongs to an interrupted update.
                if name.startswith(f"{self.plan_name}/") and name not in plan_names:
                    remove_plan(self._context, name)
        self.run(hosts)

    def run(self, hosts: Sequence[Host] = ()) -> None:
        try:
            if not self._is_ending():
                self._start_first_deployment(hosts)
            self._has_started.set()
            while not self._is_ending():
                if (deployment := self._read_internal().get(NEXT_DEPLOYMENT)) is not None:
                    self._update(deployment)
                else:
                    self.events.wait()
        except Exception as error:
            logger.exception("%s failed", self.plan_name)
            self._update_record("Failed", FailureReason=f"InternalServerError: {error!r:.900}; see the server's log")
        finally:
            self._end()

    def wake(self) -> None:
        """Make the thread read the record again, because the record or a replica changed."""
        self.events.send(Change.RESOURCE_CHANGED)

    # --- the record ---

    def _read_record(self) -> Record | None:
        return self._context.state.get(self._kind.arn_type, self._name)

    def _read_internal(self) -> Mapping[str, Any]:
        record = self._read_record()
        return record.internal if record else {}

    def _update_record(self, status: str, internal: Mapping[str, Any] | None = None, **changes: Any) -> None:
        # the status of a requested deletion must not be overwritten
        statuses = ("Creating", "Updating", "RollingBack", "InService")
        changes = {self._kind.status_member: status, **changes}
        self._context.state.update(
            self._kind.arn_type, self._name, changes, status, internal=internal, only_if=statuses
        )

    def _is_ending(self) -> bool:
        record = self._read_record()
        return self.events.stop_reason is not None or record is None or record.status == "Deleting"

    def _list_plan_names(self, deployment: Deployment) -> set[str]:
        return {planned_replica.plan_name for planned_replica in self._resource.list_planned_replicas(deployment)}

    # --- deployments ---

    def _start_first_deployment(self, hosts: Sequence[Host]) -> None:
        """Start the deployment. If it fails, the resource fails, and an interrupted update is not resumed."""
        internal = self._read_internal()
        deployment, is_updating = internal[DEPLOYMENT], internal.get(NEXT_DEPLOYMENT) is not None
        planned_replicas = self._resource.list_planned_replicas(deployment)
        if any(
            planned_replica.needs_hosts and not planned_replica.find_hosts(hosts)
            for planned_replica in planned_replicas
        ):
            self._update_record("Updating" if is_updating else "Creating")
        try:
            self._fleet = Fleet(deployment, self._start(planned_replicas, hosts))
        except StoppedError:
            return
        except CannotRunError as error:
            self._update_record("Failed", FailureReason=_truncate_reason(error), internal={NEXT_DEPLOYMENT: None})
            return
        self._serve("Updating" if is_updating else "InService")

    def _update(self, deployment: Deployment) -> None:
        """Replace the deployment in the steps of the update's policy. If a step fails, keep the current deployment."""
        config = self._read_internal().get(UPDATE_CONFIG) or {}
        speed = self._context.settings.deployment_speed
        policy = read_policy(config, self._resource.get_capacity(deployment), speed)
        try:
            self._replace(deployment, policy, time.monotonic() + policy.timeout)
        except StoppedError:
            return
        except CannotRunError as error:
            self._roll_back(_truncate_reason(error), policy)

    def _replace(self, deployment: Deployment, policy: UpdatePolicy, deadline: float) -> None:
        """Replace the deployment. Raise CannotRunError if a new replica or an alarm requires a rollback, or if the
        deadline passes."""
        planned_replicas = self._resource.list_planned_replicas(deployment)
        plan_names = {planned_replica.plan_name for planned_replica in planned_replicas}
        kept_replicas = {name: replica for name, replica in self._fleet.replicas.items() if name in plan_names}
        self._next_fleet = Fleet(deployment, kept_replicas, share=0.0)
        for share in policy.shares:
            selected_replicas = (
                select_planned_replicas(planned_replicas, share) if policy.is_rolling else planned_replicas
            )
            missing_replicas = [
                planned_replica
                for planned_replica in selected_replicas
                if planned_replica.plan_name not in self._next_fleet.replicas
            ]
            started_replicas = {**self._next_fleet.replicas, **self._start(missing_replicas, deadline=deadline)}
            self._next_fleet = Fleet(deployment, started_replicas, share=float(share))
            self._fleet = replace(self._fleet, share=float(1 - share))
            if share < 1 or policy.has_waiting_times:  # otherwise, the last `_serve` below moves all requests
                self._serve("Updating")
            self._bake(policy.baking_seconds, kept_replicas, deadline, policy.alarms)
            if policy.is_rolling:
                self._shrink(1 - share, kept_replicas)
        self._bake(policy.termination_wait, kept_replicas, deadline, policy.alarms)
        earlier_fleet, self._fleet, self._next_fleet = self._fleet, replace(self._next_fleet, share=1.0), None
        self._serve("InService")
        self._retire([replica for name, replica in earlier_fleet.replicas.items() if name not in kept_replicas])

    def _bake(self, seconds: float, kept_names: Collection[str], deadline: float, alarms: Collection[str]) -> None:
        """Wait for some seconds. Raise CannotRunError if a new replica or an alarm requires a rollback, or if the
        deadline passes."""
        end = time.monotonic() + seconds
        while not self._is_ending():
            self._check_alarms(alarms)
            replicas = self._next_fleet.replicas if self._next_fleet is not None else {}
            for name, replica in replicas.items():
                if name not in kept_names and not replica.is_serving:
                    stream = name.removeprefix(f"{self.plan_name}/")
                    raise CannotRunError(
                        f"A new container ended or did not respond during the update. Its log: {stream} in "
                        f"{self._kind.log_group(self._name)}."
                    )
            now = time.monotonic()
            if now >= deadline:
                raise _make_timeout_error()
            if now >= end:
                return
            self.events.wait(min(end, deadline, now + ALARM_INTERVAL if alarms else inf) - now)
        raise StoppedError

    def _check_alarms(self, names: Collection[str]) -> None:
        for alarm in self._context.alarms.find_active(names):
            raise CannotRunError(f"Alarm {alarm.name} is in the state ALARM: {alarm.description['StateReason']}")

    def _shrink(self, share: Fraction, kept_names: Collection[str]) -> None:
        """Keep a share of the replicas of the current deployment, and stop the others after their requests."""
        planned_replicas = select_planned_replicas(self._resource.list_planned_replicas(self._fleet.deployment), share)
        names = {*kept_names, *(planned_replica.plan_name for planned_replica in planned_replicas)}
        ended_replicas = [replica for name, replica in self._fleet.replicas.items() if name not in names]
        replicas = {name: replica for name, replica in self._fleet.replicas.items() if name in names}
        self._fleet = replace(self._fleet, replicas=replicas)
        self._serve("Updating")
        self._retire(ended_replicas)

    def _roll_back(self, reason: str, policy: UpdatePolicy) -> None:
        """Send all requests to the current deployment again, and restart its ended replicas."""
        failed_fleet = self._next_fleet or self._fleet
        self._fleet, self._next_fleet = replace(self._fleet, share=1.0), replace(failed_fleet, share=0.0)
        try:
            self._restart_missing(reason, policy.rollback_share)
        except StoppedError:
            return
        except CannotRunError as error:
            reason = _truncate_reason(f"{reason} The earlier container could not be started again: {error}")
        self._next_fleet = None
        self._serve("InService", FailureReason=reason)
        self._retire([replica for name, replica in failed_fleet.replicas.items() if name not in self._fleet.replicas])

    def _restart_missing(self, reason: str, batch_share: Fraction) -> None:
        """Start the replicas of the current deployment that have ended, in batches."""
        planned_replicas = self._resource.list_planned_replicas(self._fleet.deployment)
        missing_replicas = [
            planned_replica
            for planned_replica in planned_replicas
            if planned_replica.plan_name not in self._fleet.replicas
        ]
        batch_size = max(1, ceil(len(planned_replicas) * batch_share))
        for first in range(0, len(missing_replicas), batch_size):
            self._serve("RollingBack" if self._has_rollback_status else "Updating", FailureReason=reason)
            started_replicas = self._start(missing_replicas[first : first + batch_size])
            self._fleet = replace(self._fleet, replicas={**self._fleet.replicas, **started_replicas})

    def _serve(self, status: str, **members: Any) -> None:
        """Send requests to the current replicas, and describe them."""
        self._description = self._resource.put_in_service(self._fleet, self._next_fleet)
        internal: dict[str, Any] = {DEPLOYMENT: self._fleet.deployment}
        if status != "Updating":
            internal |= {NEXT_DEPLOYMENT: None, UPDATE_CONFIG: None}
        self._update_record(status, internal=internal, **{"FailureReason": None, **self._description, **members})

    def _retire(self, replicas: Collection[Replica]) -> None:
        """Stop replicas when they have responded to their requests; new requests go to other replicas."""
        deadline = time.monotonic() + DRAIN_TIMEOUT
        for replica in replicas:
            replica.traffic.close()
        while any(replica.traffic.find_longest_timeout() > 0 for replica in replicas) and not self._is_ending():
            if (seconds_left := deadline - time.monotonic()) <= 0:
                break
            self.events.wait(seconds_left)
        _stop(replicas, FINISHED_GRACE_PERIOD)

    def _end(self) -> None:
        """Stop all replicas. If the resource is being deleted, also delete its record."""
        self._has_started.set()
        is_shutdown = self.events.stop_reason is StopReason.SHUTDOWN
        with self._resource.closing():
            fleets = [self._fleet, *([self._next_fleet] if self._next_fleet is not None else [])]
            replicas = {name: replica for fleet in fleets for name, replica in fleet.replicas.items()}
            self._fleet, self._next_fleet = Fleet({}, {}), None
            _stop(replicas.values(), SHUTDOWN_GRACE_PERIOD if is_shutdown else FINISHED_GRACE_PERIOD)
        record = self._read_record()
        internal = record.internal if record else {}
        for deployment in (internal.get(DEPLOYMENT), internal.get(NEXT_DEPLOYMENT)):
            for name in self._list_plan_names(deployment) if deployment else ():
                remove_plan(self._context, name)
        if record is not None and record.status == "Deleting":
            self._resource.delete_record()

    # --- starts ---

    def _start(
        self, planned_replicas: Sequence[PlannedReplica], hosts: Sequence[Host] = (), deadline: float = inf
    ) -> Mapping[str, Replica]:
        """Start replicas, and return them by plan name. If a replica cannot start before the deadline, stop all of
        them, and raise the reason."""
        replicas = [planned_replica.make() for planned_replica in planned_replicas]
        with ThreadPoolExecutor(max(1, len(replicas))) as pool:
            futures = [
                pool.submit(replica.start, planned_replica.find_hosts(hosts))
                for replica, planned_replica in zip(replicas, planned_replicas, strict=True)
            ]
            self._wait_for_starts(replicas, futures, deadline)
        errors = [
            (planned_replica, error)
            for planned_replica, future in zip(planned_replicas, futures, strict=True)
            if (error := future.exception()) is not None
        ]
        if errors:
            _stop(replicas, SHUTDOWN_GRACE_PERIOD)
            raise self._make_error(errors)
        return {replica.plan_name: replica for replica in replicas}

    def _wait_for_starts(self, replicas: Sequence[Replica], futures: Sequence[Future[None]], deadline: float) -> None:
        """Wait until all replicas have started. Abandon them if one fails, if the resource ends, or at the deadline."""
        for future in futures:
            future.add_done_callback(lambda _: self.wake())
        is_late = False
        while not all(future.done() for future in futures):
            has_no_limit = is_late or deadline == inf  # after the deadline, wait for the ends of the abandoned starts
            self.events.wait(None if has_no_limit else max(0.0, deadline - time.monotonic()))
            is_late = time.monotonic() >= deadline
            if is_late or self._is_ending() or any(future.done() and future.exception() for future in futures):
                for replica in replicas:
                    replica.abandon()

    def _make_error(self, errors: Sequence[tuple[PlannedReplica, BaseException]]) -> Exception:
        """Return one error in SageMaker's words, with details of the first failed replica that was not abandoned."""
        if self._is_ending():  # the errors may be consequences of the end, such as canceled installations
            return StoppedError()
        failure = next((item for item in errors if not isinstance(item[1], StoppedError)), None)
        if failure is None:
            return _make_timeout_error()
        planned_replica, error = failure
        if isinstance(error, UnhealthyError):
            stream = planned_replica.plan_name.removeprefix(f"{self.plan_name}/")
            stream = stream if error.container == PRIMARY else f"{stream}/{error.container}"
            return CannotRunError(
                f"The {error.container} container for {planned_replica.group_name} did not pass the ping health "
                f"check. {error} Its log: {stream} in {self._kind.log_group(self._name)}."
            )
        if isinstance(error, CannotRunError | ServiceError):
            return CannotRunError(f"{planned_replica.group_name[0].upper()}{planned_replica.group_name[1:]}: {error}")
        logger.error("%s could not start", self.plan_name, exc_info=error)
        return CannotRunError(f"InternalServerError: {type(error).__name__}: {error}; see the server's log")


def _stop(replicas: Collection[Replica], grace: float) -> None:
    with ThreadPoolExecutor(max(1, len(replicas))) as pool:
        list(pool.map(lambda replica: replica.stop(grace), replicas))


def _truncate_reason(reason: Exception | str) -> str:
    return str(reason)[:MAX_REASON_CHARACTERS]


def _make_timeout_error() -> CannotRunError:
    return CannotRunError("The update took longer than MaximumExecutionTimeoutInSeconds.")
