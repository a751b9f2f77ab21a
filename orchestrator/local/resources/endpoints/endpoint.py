"""Endpoints while they run."""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints import asynchronous, deployments, serverless
from microjobs_orchestrator.local.resources.endpoints.deployer import DEPLOYMENT, Deployer, Member
from microjobs_orchestrator.local.resources.endpoints.deployments import SHADOWS, VARIANTS, WEIGHT, Deployment
from microjobs_orchestrator.local.resources.endpoints.exchanges import Exchange, Observer, Target
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT, EndpointStatus
from microjobs_orchestrator.local.resources.endpoints.observers import Observers
from microjobs_orchestrator.local.resources.endpoints.replica import Replica
from microjobs_orchestrator.local.resources.endpoints.replicas import configure_replica, get_plan_name, make_replica
from microjobs_orchestrator.local.runtimes.base import Host
from microjobs_orchestrator.local.state import Record

ANY = Target()
WORDS = {VARIANTS: "production", SHADOWS: "shadow"}
"""What error messages call the variants, by the members of deployments."""

_choose = random.SystemRandom().choices


def delete_record(context: Context, name: str) -> None:
    """Delete an endpoint's queue and record."""
    for invocation in asynchronous.list_queue(context, name):
        context.state.delete(asynchronous.KIND, invocation.name)
    context.state.delete(ENDPOINT.arn_type, name)


def _list_idle_instances(record: Record) -> Collection[str]:
    """Return the instances of an endpoint that served before the server ended, and that run only for requests."""
    if record.status not in (EndpointStatus.IN_SERVICE, EndpointStatus.UPDATING):
        return ()
    variants = record.internal[DEPLOYMENT][VARIANTS]
    return [variant["InstanceId"] for variant in variants if serverless.stops_when_idle(variant)]


class Endpoint:
    """A running endpoint.

    It runs from its creation, or the start of the server, until it is deleted or the server stops.
    """

    def __init__(self, context: Context, record: Record) -> None:
        self.name = self.endpoint = record.name
        self.log_group = ENDPOINT.log_group(record.name)
        self._context = context
        self._deployer = Deployer(context, ENDPOINT, record.name, self)
        self.plan_name = self._deployer.plan_name
        self.events = self._deployer.events
        self._replicas: Mapping[str, Replica] = {}
        """The serving replicas of production variants, by the names of the variants."""
        self._weights: Mapping[str, float] = {}
        self.is_in_service = False
        self.needs_components = False
        """Whether inference components serve the variants."""
        self.random_variants: frozenset[str] = frozenset()
        """The variants whose copies of inference components are chosen at random."""
        self.async_config: Mapping[str, Any] | None = None
        """The deployment's AsyncInferenceConfig; if not None, the endpoint takes asynchronous invocations only."""
        self._observers: Sequence[Observer] = ()
        self.queue = asynchronous.Queue(context, self.name, self.choose, self.observe)
        self._observer_maker = Observers(context, self.observe)
        self._idle_instances = _list_idle_instances(record)
        """Instances that served for an earlier server. If they have no hosts, their next request starts them."""

    def run(self) -> None:
        self._deployer.run()

    def recover(self, hosts: Sequence[Host]) -> None:
        self._deployer.recover(hosts)

    def choose(self, target: Target = ANY) -> Replica | None:
        """Return the target's replica; None if it does not serve. Without a variant's name, choose one by weight."""
        replicas, weights, variant = self._replicas, self._weights, target.variant
        if variant is None and len(replicas) == 1:
            (variant,) = replicas
        elif variant is None and replicas:
            replica_weights = [weights.get(name, 1.0) for name in replicas]
            (variant,) = _choose(list(replicas), replica_weights if any(replica_weights) else None)
        return replicas.get(variant or "")

    def serves(self, replica: Replica) -> bool:
        """Return whether a replica still receives requests."""
        return replica in self._replicas.values()

    def describe_absence(self, target: Target) -> str:
        """Return the reason why `choose` returns None."""
        return f"Endpoint {self.name} has no production variant {target.variant}."

    def observe(self, exchange: Exchange) -> None:
        """Send an exchange to all observers."""
        for observer in self._observers:
            observer(exchange)

    def wake(self) -> None:
        """Make the thread of the endpoint read the record again, because the record or a replica changed."""
        self._deployer.wake()
        self.queue.wake()

    # --- what the deployer needs ---

    def list_members(self, deployment: Deployment) -> Sequence[Member]:
        return [
            self._make_member(variant, word)
            for name, word in WORDS.items()
            for variant in deployment.get(name, ())
            if "Model" in variant  # inference components have their own replicas
        ]

    def _make_member(self, variant: Mapping[str, Any], word: str) -> Member:
        may_be_idle = variant["InstanceId"] in self._idle_instances
        return Member(
            get_plan_name(self.name, variant),
            variant["InstanceId"],
            f"{word} variant {variant['VariantName']}",
            partial(make_replica, self._context, self.name, variant, self.wake, may_be_idle=may_be_idle),
            needs_hosts=not may_be_idle,
        )

    def serve(self, deployment: Deployment, replicas: Mapping[str, Replica]) -> Mapping[str, Any]:
        self._observers = self._observer_maker.make(deployment, replicas.values())
        self._weights = {variant["VariantName"]: variant[WEIGHT] for variant in deployment[VARIANTS]}
        self._replicas = {replica.variant: replica for replica in replicas.values() if replica.variant in self._weights}
        for name, variant in deployments.map_variants(deployment).items():
            if name in self._replicas:
                configure_replica(self._replicas[name], variant)
        self.is_in_service = True
        self.needs_components = not replicas
        self.random_variants = deployments.find_random_variants(deployment)
        self.async_config = deployment.get("AsyncInferenceConfig")
        if self.async_config is not None:
            client = self.async_config.get("ClientConfig", {})
            self.queue.open(client.get("MaxConcurrentInvocationsPerInstance", asynchronous.DEFAULT_CONCURRENCY))
            self.queue.wake()
        return deployments.describe(deployment, is_serving=True)

    @contextmanager
    def closing(self) -> Iterator[None]:
        self.queue.stop()
        self.is_in_service = False
        self._replicas = {}
        yield
        self.queue.close()
        self._observer_maker.close()

    def delete_record(self) -> None:
        delete_record(self._context, self.name)
