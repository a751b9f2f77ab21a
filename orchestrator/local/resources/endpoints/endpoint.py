"""Endpoints while they run.

The internal state contains the deployment, and the next deployment during an update. The thread of the endpoint reads
it, and starts and stops replicas accordingly.
"""

import logging
import random
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle.attempt import remove_plan
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.events import Change, EventQueue, StopReason
from microjobs_orchestrator.local.lifecycle.hosts import FINISHED_GRACE_PERIOD, SHUTDOWN_GRACE_PERIOD
from microjobs_orchestrator.local.lifecycle.job import MAX_REASON_CHARACTERS
from microjobs_orchestrator.local.resources.endpoints import asynchronous, deployments
from microjobs_orchestrator.local.resources.endpoints.deployments import WEIGHT, Deployment
from microjobs_orchestrator.local.resources.endpoints.exchanges import Exchange, Observer, Target
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT
from microjobs_orchestrator.local.resources.endpoints.replica import Replica
from microjobs_orchestrator.local.resources.endpoints.replicas import get_plan_name, make_replica
from microjobs_orchestrator.local.resources.models.serving import StoppedError, UnhealthyError
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host
from microjobs_orchestrator.local.state import Record

logger = logging.getLogger(__name__)

DEPLOYMENT, NEXT_DEPLOYMENT = "Deployment", "NextDeployment"
"""Keys of the internal state."""

DRAIN_TIMEOUT = 60.0
"""Seconds until replaced replicas are stopped even if they still process requests. One response may take this long."""

ANY = Target()

_choose = random.SystemRandom().choices


def delete_record(context: Context, name: str) -> None:
    """Delete an endpoint's queue and record."""
    for invocation in asynchronous.list_queue(context, name):
        context.state.delete(asynchronous.KIND, invocation.name)
    context.state.delete(ENDPOINT.arn_type, name)


class Endpoint:
    """A running endpoint.

    It runs from its creation, or the start of the server, until it is deleted or the server stops.
    """

    def __init__(self, context: Context, record: Record) -> None:
        self.name = record.name
        self.plan_name = f"{ENDPOINT.arn_type}/{record.name}"
        """The beginning of the plan names: each replica has a plan of its own."""
        self.events = EventQueue()
        self._context = context
        self._replicas: Mapping[str, Replica] = {}
        """The serving replicas, by the names of their variants."""
        self._weights: Mapping[str, float] = {}
        self.async_config: Mapping[str, Any] | None = None
        """The deployment's AsyncInferenceConfig; if not None, the endpoint takes asynchronous invocations only."""
        self.queue = asynchronous.Queue(context, self.name, self.choose, self.observe)
        self._observers: Sequence[Observer] = ()

    def run(self) -> None:
        self._run(())

    def recover(self, hosts: Sequence[Host]) -> None:
        """Resume with the hosts that an earlier server started; start the other hosts again."""
        if hosts:
            used = self._plan_names(self._read_internal()[DEPLOYMENT])
            for name in self._context.runtime.find_hosts():
                if name.startswith(f"{self.plan_name}/") and name not in used:  # a host of an interrupted update
                    remove_plan(self._context, name)
        self._run(hosts)

    def choose(self, target: Target = ANY) -> Replica | None:
        """Return the target's replica; None if it does not serve. Without a variant's name, choose one by weight."""
        replicas, weights, variant = self._replicas, self._weights, target.variant
        if variant is None and replicas:
            replica_weights = [weights.get(name, 1.0) for name in replicas]
            (variant,) = _choose(list(replicas), replica_weights if any(replica_weights) else None)
        return replicas.get(variant or "")

    def observe(self, exchange: Exchange) -> None:
        """Send an exchange to all observers."""
        for observer in self._observers:
            observer(exchange)

    def wake(self) -> None:
        """Make the thread of the endpoint read the record again, because the record or a replica changed."""
        self.events.send(Change.ENDPOINT_CHANGED)
        self.queue.wake()

    # --- the life of the endpoint ---

    def _run(self, hosts: Sequence[Host]) -> None:
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

    def _read_record(self) -> Record | None:
        return self._context.state.get(ENDPOINT.arn_type, self.name)

    def _is_ending(self) -> bool:
        record = self._read_record()
        return self.events.stop_reason is not None or record is None or record.status == "Deleting"

    def _read_internal(self) -> Mapping[str, Any]:
        record = self._read_record()
        return record.internal if record else {}

    def _start_first_deployment(self, hosts: Sequence[Host]) -> None:
        """Start the deployment. If it fails, the endpoint fails, and an interrupted update is not resumed."""
        internal = self._read_internal()
        deployment, is_updating = internal[DEPLOYMENT], internal.get(NEXT_DEPLOYMENT) is not None
        if any(not _find_hosts(hosts, variant) for variant in deployment["Variants"]):
            self._update_record("Updating" if is_updating else "Creating")
        self._deploy(deployment, hosts, "Updating" if is_updating else "InService", "Failed")

    def _deploy(self, deployment: Deployment, hosts: Sequence[Host], status: str, failure_status: str) -> None:
        """Start a deployment's missing replicas, let it serve, and stop the replicas of the earlier deployment."""
        earlier, used = self._replicas, self._plan_names(deployment)
        kept = {name: replica for name, replica in earlier.items() if replica.plan_name in used}
        try:
            started = self._start(deployment, hosts, kept)
        except StoppedError:
            return
        except CannotRunError as error:
            self._update_record(
                failure_status, FailureReason=str(error)[:MAX_REASON_CHARACTERS], internal={NEXT_DEPLOYMENT: None}
            )
            return
        self._serve(deployment, {**kept, **started}, status)
        self._retire([replica for replica in earlier.values() if replica.plan_name not in used])

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

    def _serve(self, deployment: Deployment, replicas: Mapping[str, Replica], status: str) -> None:
        self._weights = {variant["VariantName"]: variant[WEIGHT] for variant in deployment["Variants"]}
        self._replicas = replicas
        self.async_config = deployment.get("AsyncInferenceConfig")
        if self.async_config is not None:
            client = self.async_config.get("ClientConfig", {})
            self.queue.open(client.get("MaxConcurrentInvocationsPerInstance", asynchronous.DEFAULT_CONCURRENCY))
        internal = {DEPLOYMENT: deployment, **({NEXT_DEPLOYMENT: None} if status == "InService" else {})}
        members = deployments.describe(deployment, is_serving=True)
        self._update_record(status, internal=internal, FailureReason=None, **members)
        self.queue.wake()

    def _update_record(self, status: str, internal: Mapping[str, Any] | None = None, **changes: Any) -> None:
        states = ("Creating", "Updating", "InService")  # a requested deletion is not overwritten
        changes = {"EndpointStatus": status, **changes}
        self._context.state.update(ENDPOINT.arn_type, self.name, changes, status, internal=internal, only_if=states)

    def _end(self) -> None:
        self.queue.stop()
        replicas, self._replicas = self._replicas, {}
        is_shutdown = self.events.stop_reason is StopReason.SHUTDOWN
        _stop(replicas.values(), SHUTDOWN_GRACE_PERIOD if is_shutdown else FINISHED_GRACE_PERIOD)
        self.queue.close()
        record = self._read_record()
        internal = record.internal if record else {}
        for deployment in (internal.get(DEPLOYMENT), internal.get(NEXT_DEPLOYMENT)):
            for name in self._plan_names(deployment) if deployment else ():
                remove_plan(self._context, name)
        if record is not None and record.status == "Deleting":
            delete_record(self._context, self.name)

    # --- replicas ---

    def _start(self, deployment: Deployment, hosts: Sequence[Host], kept: Collection[str]) -> Mapping[str, Replica]:
        """Start a replica for each variant that is not in `kept`. If one cannot start, stop all of them and raise."""
        variants = [variant for variant in deployment["Variants"] if variant["VariantName"] not in kept]
        replicas = [make_replica(self._context, self.name, variant, self.wake) for variant in variants]
        with ThreadPoolExecutor(max(1, len(replicas))) as pool:
            starts = [
                pool.submit(replica.start, _find_hosts(hosts, variant))
                for replica, variant in zip(replicas, variants, strict=True)
            ]
            self._wait_for_starts(replicas, starts)
        errors = {
            replica: error
            for replica, start in zip(replicas, starts, strict=True)
            if (error := start.exception()) is not None
        }
        if errors:
            _stop(replicas, SHUTDOWN_GRACE_PERIOD)
            raise self._make_error(errors)
        return {replica.variant: replica for replica in replicas}

    def _wait_for_starts(self, replicas: Sequence[Replica], starts: Sequence[Future[None]]) -> None:
        """Wait until all replicas have started. If one fails, or the endpoint ends, abandon the other replicas."""
        for start in starts:
            start.add_done_callback(lambda _: self.wake())
        while not all(start.done() for start in starts):
            self.events.wait()
            if self._is_ending() or any(start.done() and start.exception() for start in starts):
                for replica in replicas:
                    replica.abandon()

    def _make_error(self, errors: Mapping[Replica, BaseException]) -> Exception:
        """Return one error in SageMaker's words, with details of the first failed replica that was not abandoned."""
        failed = next((replica for replica, error in errors.items() if not isinstance(error, StoppedError)), None)
        if failed is None:
            return StoppedError()
        error, name = errors[failed], failed.variant
        if isinstance(error, UnhealthyError):
            stream = failed.plan_name.removeprefix(f"{self.plan_name}/")
            return CannotRunError(
                f"The primary container for production variant {name} did not pass the ping health check. {error} "
                f"Its log: {stream} in {ENDPOINT.log_group(self.name)}."
            )
        if isinstance(error, CannotRunError | ServiceError):
            return CannotRunError(f"Production variant {name}: {error}")
        logger.error("%s could not start", self.plan_name, exc_info=error)
        return CannotRunError(f"InternalServerError: {type(error).__name__}: {error}; see the server's log")

    def _plan_names(self, deployment: Deployment) -> set[str]:
        return {get_plan_name(self.name, variant) for variant in deployment["Variants"]}


def _find_hosts(hosts: Sequence[Host], variant: Mapping[str, Any]) -> Sequence[Host]:
    """Return those hosts that belong to a variant's replica: their names begin with the id of its instance."""
    return [host for host in hosts if host.name.startswith(variant["InstanceId"])]


def _stop(replicas: Collection[Replica], grace: float) -> None:
    with ThreadPoolExecutor(max(1, len(replicas))) as pool:
        list(pool.map(lambda replica: replica.stop(grace), replicas))
