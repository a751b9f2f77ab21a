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
from microjobs_orchestrator.local.lifecycle import attempt as attempts
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.control import Change, Control, StopReason
from microjobs_orchestrator.local.lifecycle.hosts import FINISHED_GRACE_PERIOD, SHUTDOWN_GRACE_PERIOD
from microjobs_orchestrator.local.lifecycle.job import REASON_LIMIT
from microjobs_orchestrator.local.resources.endpoints import asynchronous, deployments
from microjobs_orchestrator.local.resources.endpoints.deployments import Deployment
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT
from microjobs_orchestrator.local.resources.endpoints.replicas import Replica
from microjobs_orchestrator.local.resources.models import serving
from microjobs_orchestrator.local.resources.models.serving import StoppedError, UnhealthyError
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host
from microjobs_orchestrator.local.state import Record

logger = logging.getLogger(__name__)

DEPLOYMENT, NEXT = "Deployment", "NextDeployment"
"""Keys of the internal state."""

DRAIN_TIMEOUT = 60.0
"""Seconds that replaced containers may take to answer their requests: as long as one answer may take."""

_choose = random.SystemRandom().choices


def forget(context: Context, name: str) -> None:
    asynchronous.discard(context, name)
    context.state.delete(ENDPOINT.arn_type, name)


class Endpoint:
    """An endpoint, from its creation or the server's start to its deletion or the server's end.

    A stop request is a deletion: endpoints have no other stop.
    """

    kind = ENDPOINT.arn_type

    def __init__(self, context: Context, record: Record) -> None:
        self.name = record.name
        self.control = Control()
        self._context = context
        self._replicas: Mapping[str, Replica] = {}
        """The serving replicas, by the names of their variants."""
        self._weights: Mapping[str, float] = {}
        self.asynchronous: Mapping[str, Any] | None = None
        """The AsyncInferenceConfig of the deployment. With one, the endpoint takes asynchronous invocations only."""
        self.queue = asynchronous.Queue(context, self.name, self.choose)

    @property
    def plan_name(self) -> str:
        """The beginning of the plan names: each replica has a plan of its own."""
        return f"{ENDPOINT.arn_type}/{self.name}"

    def run(self) -> None:
        self._live({})

    def recover(self, hosts: Sequence[Host]) -> None:
        """Resume with the containers that an earlier server started; start the others again."""
        if hosts:
            kept = {self._plan_name(variant) for variant in self._read_internal()[DEPLOYMENT]["Variants"]}
            for name in self._context.runtime.running():  # of an interrupted update
                if name.startswith(f"{self.plan_name}/") and name not in kept:
                    attempts.remove(self._context, name)
        self._live({host.name: host for host in hosts})

    def choose(self, variant: str | None = None) -> tuple[str, Replica] | None:
        """Return a variant and its replica, chosen by weight unless a variant is given; None if it does not serve."""
        replicas, weights = self._replicas, self._weights
        if variant is None and replicas:
            known = [weights.get(name, 1.0) for name in replicas]
            (variant,) = _choose(list(replicas), known if any(known) else None)
        replica = replicas.get(variant or "")
        return (variant, replica) if variant is not None and replica is not None else None

    def wake(self) -> None:
        """Make the endpoint read its description again, because it or a replica changed."""
        self.control.send(Change.ENDPOINT)
        self.queue.wake()

    # --- its life ---

    def _live(self, hosts: Mapping[str, Host]) -> None:
        try:
            if not self._is_unwanted():
                self._bring_up(hosts)
            while not self._is_unwanted():
                if (following := self._read_internal().get(NEXT)) is not None:
                    self._update(following)
                    continue
                self.control.wait()
        except Exception as error:
            logger.exception("%s failed", self.plan_name)
            self._describe("Failed", FailureReason=f"InternalServerError: {error!r:.900}; see the server's log")
        finally:
            self._end()

    def _is_unwanted(self) -> bool:
        record = self._context.state.get(ENDPOINT.arn_type, self.name)
        return self.control.reason is not None or record is None or record.status == "Deleting"

    def _read_internal(self) -> Mapping[str, Any]:
        record = self._context.state.get(ENDPOINT.arn_type, self.name)
        return record.internal if record else {}

    def _bring_up(self, hosts: Mapping[str, Host]) -> None:
        known = self._read_internal()
        deployment, is_updating = known[DEPLOYMENT], known.get(NEXT) is not None
        if any(variant["InstanceId"] not in hosts for variant in deployment["Variants"]):
            self._describe("Updating" if is_updating else "Creating")
        try:
            self._serve(deployment, self._start(deployment, hosts), "Updating" if is_updating else "InService")
        except StoppedError:
            return
        except CannotRunError as error:  # an update that was under way has nothing to start from
            self._describe("Failed", FailureReason=str(error)[:REASON_LIMIT], internal={NEXT: None})

    def _update(self, deployment: Deployment) -> None:
        old = self._replicas
        planned = {self._plan_name(variant) for variant in deployment["Variants"]}
        kept = {name: replica for name, replica in old.items() if replica.plan_name in planned}
        try:
            fresh = self._start(deployment, {}, kept)
        except StoppedError:
            return
        except CannotRunError as error:
            self._describe("InService", FailureReason=str(error)[:REASON_LIMIT], internal={NEXT: None})
            return
        self._serve(deployment, {**kept, **fresh}, "InService")
        self._retire([replica for replica in old.values() if replica.plan_name not in planned])

    def _retire(self, replicas: Collection[Replica]) -> None:
        """Stop replicas when they have answered their requests; new requests go to others."""
        deadline = time.monotonic() + DRAIN_TIMEOUT
        for replica in replicas:
            replica.close()
        while any(replica.is_busy() for replica in replicas) and not self._is_unwanted():
            if (left := deadline - time.monotonic()) <= 0:
                break
            self.control.wait(left)
        _stop(replicas, FINISHED_GRACE_PERIOD)

    def _serve(self, deployment: Deployment, replicas: Mapping[str, Replica], status: str) -> None:
        self._weights = {item["VariantName"]: item["InitialVariantWeight"] for item in deployment["Variants"]}
        self._replicas = replicas
        self.asynchronous = deployment.get("AsyncInferenceConfig")
        if self.asynchronous is not None:
            client = self.asynchronous.get("ClientConfig", {})
            self.queue.open(client.get("MaxConcurrentInvocationsPerInstance", asynchronous.DEFAULT_CONCURRENCY))
        internal = {DEPLOYMENT: deployment, **({NEXT: None} if status == "InService" else {})}
        self._describe(
            status, internal=internal, FailureReason=None, **deployments.describe(deployment, is_serving=True)
        )
        self.queue.wake()

    def _describe(self, status: str, internal: Mapping[str, Any] | None = None, **changes: Any) -> None:
        # A deletion that was asked for meanwhile stays.
        states = ("Creating", "Updating", "InService")
        changes = {"EndpointStatus": status, **changes}
        self._context.state.update(ENDPOINT.arn_type, self.name, changes, status, internal=internal, only_if=states)

    def _end(self) -> None:
        self.queue.stop()
        ending, self._replicas = self._replicas, {}
        is_shutdown = self.control.reason is StopReason.SHUTDOWN
        _stop(ending.values(), SHUTDOWN_GRACE_PERIOD if is_shutdown else FINISHED_GRACE_PERIOD)
        self.queue.close()
        record = self._context.state.get(ENDPOINT.arn_type, self.name)
        known = record.internal if record else {}
        for deployment in (known.get(DEPLOYMENT), known.get(NEXT)):
            for variant in deployment["Variants"] if deployment else ():
                attempts.remove(self._context, self._plan_name(variant))
        if record is not None and record.status == "Deleting":
            forget(self._context, self.name)

    # --- its containers ---

    def _start(
        self, deployment: Deployment, hosts: Mapping[str, Host], kept: Collection[str] = ()
    ) -> Mapping[str, Replica]:
        """Start replicas for all variants, or for none.

        Args:
            hosts: running hosts, by their names.
            kept: names of variants whose replicas stay.

        Raises:
            CannotRunError: a replica could not be started or is not healthy.
            StoppedError: the endpoint is being deleted, or the server ends.
        """
        variants = [variant for variant in deployment["Variants"] if variant["VariantName"] not in kept]
        replicas = {variant["VariantName"]: self._replica(variant) for variant in variants}
        with ThreadPoolExecutor(max(1, len(replicas))) as pool:
            starts = {
                variant["VariantName"]: pool.submit(
                    replicas[variant["VariantName"]].start, hosts.get(variant["InstanceId"])
                )
                for variant in variants
            }
            self._await(replicas, starts)
        failures = {name: error for name, start in starts.items() if (error := start.exception()) is not None}
        if failures:
            _stop(replicas.values(), SHUTDOWN_GRACE_PERIOD)
            raise self._reason(failures, variants)
        return replicas

    def _await(self, replicas: Mapping[str, Replica], starts: Mapping[str, Future[None]]) -> None:
        """Wait until all replicas have started. If one fails, or the endpoint ends, abandon the others."""
        for start in starts.values():
            start.add_done_callback(lambda _: self.wake())
        while not all(start.done() for start in starts.values()):
            self.control.wait()
            if self._is_unwanted() or any(start.done() and start.exception() for start in starts.values()):
                for replica in replicas.values():
                    replica.abandon()

    def _reason(self, failures: Mapping[str, BaseException], variants: Sequence[Mapping[str, Any]]) -> Exception:
        """Return an error in SageMaker's words with the details of the replica that failed."""
        told = {name: error for name, error in failures.items() if not isinstance(error, StoppedError)}
        if not told:
            return StoppedError()
        name, error = next(iter(told.items()))
        if isinstance(error, UnhealthyError):
            stream = next(_stream_name(item) for item in variants if item["VariantName"] == name)
            return CannotRunError(
                f"The primary container for production variant {name} did not pass the ping health check. {error} "
                f"Its log: {stream} in {ENDPOINT.log_group(self.name)}."
            )
        if isinstance(error, CannotRunError | ServiceError):
            return CannotRunError(f"Production variant {name}: {error}")
        logger.error("%s could not start", self.plan_name, exc_info=error)
        return CannotRunError(f"InternalServerError: {type(error).__name__}: {error}; see the server's log")

    def _replica(self, variant: Mapping[str, Any]) -> Replica:
        attempt = serving.make_attempt(
            self._context,
            variant["Model"],
            self._plan_name(variant),
            [variant["InstanceId"]],
            variant["InstanceType"],
            lambda _: self._context.logs.create(ENDPOINT.log_group(self.name), _stream_name(variant)),
        )
        timeout = variant.get("ContainerStartupHealthCheckTimeoutInSeconds", serving.STARTUP_TIMEOUT)
        return Replica(self._context, attempt, timeout, self.wake)

    def _plan_name(self, variant: Mapping[str, Any]) -> str:
        return f"{self.plan_name}/{variant['VariantName']}/{variant['InstanceId']}"


def _stream_name(variant: Mapping[str, Any]) -> str:
    return f"{variant['VariantName']}/{variant['InstanceId']}"


def _stop(replicas: Collection[Replica], grace: float) -> None:
    """Stop all replicas in parallel."""
    with ThreadPoolExecutor(max(1, len(replicas))) as pool:
        list(pool.map(lambda replica: replica.stop(grace), replicas))
