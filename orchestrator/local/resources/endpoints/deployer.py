"""Keeps a resource in service that has deployments: an endpoint, or an inference component.

The internal state contains the deployment, and the next deployment during an update. The thread of the resource reads
it, and starts and stops replicas accordingly.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.kinds import Kind
from microjobs_orchestrator.local.lifecycle.attempt import remove_plan
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.events import Change, EventQueue, StopReason
from microjobs_orchestrator.local.lifecycle.hosts import FINISHED_GRACE_PERIOD, SHUTDOWN_GRACE_PERIOD
from microjobs_orchestrator.local.lifecycle.job import MAX_REASON_CHARACTERS
from microjobs_orchestrator.local.resources.endpoints.replica import Replica
from microjobs_orchestrator.local.resources.models.client import PRIMARY
from microjobs_orchestrator.local.resources.models.serving import StoppedError, UnhealthyError
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host
from microjobs_orchestrator.local.state import Record

logger = logging.getLogger(__name__)

DEPLOYMENT, NEXT_DEPLOYMENT = "Deployment", "NextDeployment"
"""Keys of the internal state."""

DRAIN_TIMEOUT = 60.0
"""Seconds until replaced replicas are stopped even if they still process requests. One response may take this long."""

Deployment = Mapping[str, Any]


@dataclass(frozen=True)
class Member:
    """A replica of a deployment, which may not run yet."""

    plan_name: str
    instance_id: str
    """The names of the replica's hosts begin with this id."""
    description: str
    """The beginning of error messages, such as `production variant main`."""
    make: Callable[[], Replica]
    needs_hosts: bool = True
    """Whether the replica serves only if its hosts run."""

    def find_hosts(self, hosts: Sequence[Host]) -> Sequence[Host]:
        """Return those hosts of an earlier server that belong to the replica."""
        return [host for host in hosts if host.name.startswith(self.instance_id)]


class Deployable(Protocol):
    """A resource that has deployments."""

    def list_members(self, deployment: Deployment) -> Sequence[Member]:
        """Return the replicas of a deployment."""

    def serve(self, deployment: Deployment, replicas: Mapping[str, Replica]) -> Mapping[str, Any]:
        """Send requests to replicas from now on. Return members of the description.

        Args:
            replicas: the replicas of the deployment, by plan name. All of them serve.
        """

    def closing(self) -> AbstractContextManager[None]:
        """Return a context in which the replicas end: no request starts in it, and all have ended after it."""

    def delete_record(self) -> None: ...


class Deployer:
    """Runs the deployments of one resource, from its creation until it is deleted or the server stops."""

    def __init__(self, context: Context, kind: Kind, name: str, resource: Deployable) -> None:
        self.plan_name = f"{kind.arn_type}/{name}"
        """The beginning of the plan names: each replica has a plan of its own."""
        self.events = EventQueue()
        self._context = context
        self._kind = kind
        self._name = name
        self._resource = resource
        self._replicas: Mapping[str, Replica] = {}
        """The serving replicas, by plan name."""

    def recover(self, hosts: Sequence[Host]) -> None:
        """Resume with the hosts that an earlier server started; start the other hosts again."""
        if hosts:
            used = self._list_plan_names(self._read_internal()[DEPLOYMENT])
            for name in self._context.runtime.find_hosts():
                if name.startswith(f"{self.plan_name}/") and name not in used:  # a host of an interrupted update
                    remove_plan(self._context, name)
        self.run(hosts)

    def run(self, hosts: Sequence[Host] = ()) -> None:
        try:
            if not self._is_ending():
                self._start_first_deployment(hosts)
            while not self._is_ending():
                if (deployment := self._read_internal().get(NEXT_DEPLOYMENT)) is not None:
                    self._deploy(deployment, (), "InService", "InService")
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
        states = ("Creating", "Updating", "InService")  # a requested deletion is not overwritten
        changes = {self._kind.status_member: status, **changes}
        self._context.state.update(self._kind.arn_type, self._name, changes, status, internal=internal, only_if=states)

    def _is_ending(self) -> bool:
        record = self._read_record()
        return self.events.stop_reason is not None or record is None or record.status == "Deleting"

    def _list_plan_names(self, deployment: Deployment) -> set[str]:
        return {member.plan_name for member in self._resource.list_members(deployment)}

    # --- deployments ---

    def _start_first_deployment(self, hosts: Sequence[Host]) -> None:
        """Start the deployment. If it fails, the resource fails, and an interrupted update is not resumed."""
        internal = self._read_internal()
        deployment, is_updating = internal[DEPLOYMENT], internal.get(NEXT_DEPLOYMENT) is not None
        members = self._resource.list_members(deployment)
        if any(member.needs_hosts and not member.find_hosts(hosts) for member in members):
            self._update_record("Updating" if is_updating else "Creating")
        self._deploy(deployment, hosts, "Updating" if is_updating else "InService", "Failed")

    def _deploy(self, deployment: Deployment, hosts: Sequence[Host], status: str, failure_status: str) -> None:
        """Start a deployment's missing replicas, let it serve, and stop the replicas of the earlier deployment."""
        earlier, members = self._replicas, self._resource.list_members(deployment)
        used = {member.plan_name for member in members}
        kept = {name: replica for name, replica in earlier.items() if name in used}
        try:
            started = self._start([member for member in members if member.plan_name not in kept], hosts)
        except StoppedError:
            return
        except CannotRunError as error:
            reason = str(error)[:MAX_REASON_CHARACTERS]
            self._update_record(failure_status, FailureReason=reason, internal={NEXT_DEPLOYMENT: None})
            return
        self._serve(deployment, {**kept, **started}, status)
        self._retire([replica for name, replica in earlier.items() if name not in used])

    def _serve(self, deployment: Deployment, replicas: Mapping[str, Replica], status: str) -> None:
        self._replicas = replicas
        members = self._resource.serve(deployment, replicas)
        internal = {DEPLOYMENT: deployment, **({NEXT_DEPLOYMENT: None} if status == "InService" else {})}
        self._update_record(status, internal=internal, FailureReason=None, **members)

    def _retire(self, replicas: Collection[Replica]) -> None:
        """Stop replicas when they have responded to their requests; new requests go to other replicas."""
        deadline = time.monotonic() + DRAIN_TIMEOUT
        for replica in replicas:
            replica.traffic.close()
        while any(replica.traffic.longest_timeout() > 0 for replica in replicas) and not self._is_ending():
            if (seconds_left := deadline - time.monotonic()) <= 0:
                break
            self.events.wait(seconds_left)
        _stop(replicas, FINISHED_GRACE_PERIOD)

    def _end(self) -> None:
        is_shutdown = self.events.stop_reason is StopReason.SHUTDOWN
        with self._resource.closing():
            replicas, self._replicas = self._replicas, {}
            _stop(replicas.values(), SHUTDOWN_GRACE_PERIOD if is_shutdown else FINISHED_GRACE_PERIOD)
        record = self._read_record()
        internal = record.internal if record else {}
        for deployment in (internal.get(DEPLOYMENT), internal.get(NEXT_DEPLOYMENT)):
            for name in self._list_plan_names(deployment) if deployment else ():
                remove_plan(self._context, name)
        if record is not None and record.status == "Deleting":
            self._resource.delete_record()

    # --- starts ---

    def _start(self, members: Sequence[Member], hosts: Sequence[Host]) -> Mapping[str, Replica]:
        """Start replicas; return them by plan name. If one cannot start, stop all of them and raise."""
        replicas = [member.make() for member in members]
        with ThreadPoolExecutor(max(1, len(replicas))) as pool:
            starts = [
                pool.submit(replica.start, member.find_hosts(hosts))
                for replica, member in zip(replicas, members, strict=True)
            ]
            self._wait_for_starts(replicas, starts)
        errors = [
            (member, error)
            for member, start in zip(members, starts, strict=True)
            if (error := start.exception()) is not None
        ]
        if errors:
            _stop(replicas, SHUTDOWN_GRACE_PERIOD)
            raise self._make_error(errors)
        return {replica.plan_name: replica for replica in replicas}

    def _wait_for_starts(self, replicas: Sequence[Replica], starts: Sequence[Future[None]]) -> None:
        """Wait until all replicas have started. If one fails, or the resource ends, abandon the other replicas."""
        for start in starts:
            start.add_done_callback(lambda _: self.wake())
        while not all(start.done() for start in starts):
            self.events.wait()
            if self._is_ending() or any(start.done() and start.exception() for start in starts):
                for replica in replicas:
                    replica.abandon()

    def _make_error(self, errors: Sequence[tuple[Member, BaseException]]) -> Exception:
        """Return one error in SageMaker's words, with details of the first failed replica that was not abandoned."""
        failed = next((item for item in errors if not isinstance(item[1], StoppedError)), None)
        if failed is None:
            return StoppedError()
        member, error = failed
        if isinstance(error, UnhealthyError):
            stream = member.plan_name.removeprefix(f"{self.plan_name}/")
            stream = stream if error.container == PRIMARY else f"{stream}/{error.container}"
            return CannotRunError(
                f"The {error.container} container for {member.description} did not pass the ping health check. {error} "
                f"Its log: {stream} in {self._kind.log_group(self._name)}."
            )
        if isinstance(error, CannotRunError | ServiceError):
            return CannotRunError(f"{member.description[0].upper()}{member.description[1:]}: {error}")
        logger.error("%s could not start", self.plan_name, exc_info=error)
        return CannotRunError(f"InternalServerError: {type(error).__name__}: {error}; see the server's log")


def _stop(replicas: Collection[Replica], grace: float) -> None:
    with ThreadPoolExecutor(max(1, len(replicas))) as pool:
        list(pool.map(lambda replica: replica.stop(grace), replicas))
