"""Endpoints while they run."""

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints import asynchronous, deployments, serverless
from microjobs_orchestrator.local.resources.endpoints.deployer import DEPLOYMENT, Deployer
from microjobs_orchestrator.local.resources.endpoints.deployments import SHADOWS, VARIANT_WEIGHT, VARIANTS, Deployment
from microjobs_orchestrator.local.resources.endpoints.exchanges import Exchange, InvocationTarget, Observer
from microjobs_orchestrator.local.resources.endpoints.fleets import Fleet, PlannedReplica
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT, SERVING_STATUSES
from microjobs_orchestrator.local.resources.endpoints.observers import ObserverMaker
from microjobs_orchestrator.local.resources.endpoints.replica import Replica
from microjobs_orchestrator.local.resources.endpoints.replicas import configure_replica, get_plan_name, make_replica
from microjobs_orchestrator.local.resources.endpoints.routing import (
    ReplicaGroup,
    Router,
    WeightedGroup,
    group_replicas,
    make_weighted_groups,
)
from microjobs_orchestrator.local.runtimes.base import Host
from microjobs_orchestrator.local.state import Record

ANY_TARGET = InvocationTarget()
VARIANT_TYPES = {VARIANTS: "production", SHADOWS: "shadow"}
"""For each member of a deployment that lists variants, the word for their type in error messages."""


def delete_record(context: Context, name: str) -> None:
    """Delete an endpoint's queue and record."""
    for invocation in asynchronous.list_queue(context, name):
        context.state.delete(asynchronous.INVOCATION_KIND, invocation.name)
    context.state.delete(ENDPOINT.arn_type, name)


def _list_possibly_idle_instances(record: Record) -> Collection[str]:
    """Return the ids of the instances that were in service before the server restarted, and that run only while there
    are requests."""
    if record.status not in SERVING_STATUSES:
        return ()
    variants = record.internal[DEPLOYMENT][VARIANTS]
    return [variant["InstanceId"] for variant in variants if serverless.stops_when_idle(variant)]


def _count_replicas(groups: Mapping[str, ReplicaGroup]) -> dict[str, int]:
    """Return the number of running instances by variant."""
    return {variant: len(group.replicas) for variant, group in groups.items()}


class Endpoint:
    """A running endpoint.

    It runs from its creation, or the start of the server, until it is deleted or the server stops.
    """

    def __init__(self, context: Context, record: Record) -> None:
        self.name = record.name
        self.endpoint = record.name
        """The name of the endpoint. The class `InferenceComponent` has the same attribute."""
        self.log_group = ENDPOINT.log_group(record.name)
        self._context = context
        self._deployer = Deployer(context, ENDPOINT, record.name, self)
        self.plan_name = self._deployer.plan_name
        self.events = self._deployer.events
        self.wait_for_start = self._deployer.wait_for_start
        self._router = Router()
        self.is_in_service = threading.Event()
        self.needs_components = False
        """Whether inference components serve the variants."""
        self.randomly_routed_variants: frozenset[str] = frozenset()
        """The variants whose instances, or copies of inference components, are chosen at random."""
        self.async_config: Mapping[str, Any] | None = None
        """The deployment's AsyncInferenceConfig; if it is not None, the endpoint accepts only asynchronous
        invocations."""
        self._observers: Sequence[Observer] = ()
        self.queue = asynchronous.InvocationQueue(context, self.name, self.choose_replica, self.observe)
        self._observer_maker = ObserverMaker(context, self.observe)
        self._possibly_idle_instances = _list_possibly_idle_instances(record)
        """Instances that were in service before the server restarted. If they have no hosts, their next request starts
        them."""

    def run(self) -> None:
        self._deployer.run()

    def recover(self, hosts: Sequence[Host]) -> None:
        self._deployer.recover(hosts)

    def choose_replica(
        self, target: InvocationTarget = ANY_TARGET, tried_replicas: Collection[Replica] = ()
    ) -> Replica | None:
        """Return a replica for a request, if possible not one of `tried_replicas`; None if none serves the target."""
        return self._router.choose_replica(target.variant, tried_replicas)

    def routes_to(self, replica: Replica) -> bool:
        """Return whether a replica still receives requests."""
        return self._router.routes_to(replica)

    def has_other_replica(self, tried_replicas: Sequence[Replica]) -> bool:
        """Return whether another replica can receive a request that did not reach `tried_replicas`."""
        return self._router.has_other_replica(tried_replicas)

    def explain_missing_replica(self, target: InvocationTarget) -> str:
        """Return the reason why `choose_replica` returns None."""
        name = "" if target.variant is None else f" {target.variant}"
        return f"Endpoint {self.name} has no production variant{name} with instances."

    def observe(self, exchange: Exchange) -> None:
        """Send an exchange to all observers."""
        for observer in self._observers:
            observer(exchange)

    def wake(self) -> None:
        """Report that the record or a replica changed: the endpoint's thread reads the record again, and waiting
        asynchronous invocations choose a replica again."""
        self._deployer.wake()
        self.queue.wake()

    # --- methods that the deployer calls ---

    def list_planned_replicas(self, deployment: Deployment) -> Sequence[PlannedReplica]:
        return [
            self._make_planned_replica(instance, variant_type)
            for name, variant_type in VARIANT_TYPES.items()
            for variant in deployment.get(name, ())
            if "Model" in variant  # inference components have their own replicas
            for instance in deployments.list_instances(variant, self._context.settings.max_instances)
        ]

    def _make_planned_replica(self, variant: Mapping[str, Any], variant_type: str) -> PlannedReplica:
        may_be_idle = variant["InstanceId"] in self._possibly_idle_instances
        return PlannedReplica(
            get_plan_name(self.name, variant),
            instance_id=variant["InstanceId"],
            group_name=f"{variant_type} variant {variant['VariantName']}",
            make=partial(make_replica, self._context, self.name, variant, self.wake, may_be_idle=may_be_idle),
            needs_hosts=not may_be_idle,
        )

    def get_capacity(self, deployment: Deployment) -> int:
        return deployments.get_largest_instance_count(deployment)

    def put_in_service(self, fleet: Fleet, next_fleet: Fleet | None = None) -> Mapping[str, Any]:
        deployment, groups = fleet.deployment, group_replicas(fleet.replicas.values(), self._is_routed_randomly)
        weighted_groups, members = self._make_weighted_groups(fleet, groups), {}
        if next_fleet is not None:
            next_groups = group_replicas(next_fleet.replicas.values(), self._is_routed_randomly)
            weighted_groups += self._make_weighted_groups(next_fleet, next_groups)
            summary = deployments.describe_pending(
                next_fleet.deployment, _count_replicas(next_groups), next_fleet.share
            )
            members["PendingDeploymentSummary"] = summary
        self.randomly_routed_variants = deployments.find_randomly_routed_variants((next_fleet or fleet).deployment)
        # Until the update is complete, all other settings are those of the current deployment.
        self._observers = self._observer_maker.make(deployment, groups)
        self._router = Router(weighted_groups)
        self.async_config = deployment.get("AsyncInferenceConfig")
        self.needs_components = all(
            "Model" not in item for item in deployments.get_variants_by_name(deployment).values()
        )
        self.is_in_service.set()
        if next_fleet is None:
            self._configure(deployment, groups)
        return {**deployments.describe(deployment, _count_replicas(groups), fleet.share), **members}

    def _make_weighted_groups(self, fleet: Fleet, groups: Mapping[str, ReplicaGroup]) -> list[WeightedGroup]:
        weights = {variant["VariantName"]: variant[VARIANT_WEIGHT] for variant in fleet.deployment[VARIANTS]}
        return make_weighted_groups(groups, weights, fleet.share)

    def _is_routed_randomly(self, variant: str) -> bool:
        # The queue of an asynchronous endpoint runs a fixed number of requests per instance. A random choice could send
        # more requests than this number to one instance.
        return variant in self.randomly_routed_variants and self.async_config is None

    def _configure(self, deployment: Deployment, groups: Mapping[str, ReplicaGroup]) -> None:
        """Apply the settings of the deployment in service to its replicas and to the queue."""
        variants, limit = deployments.get_variants_by_name(deployment), self._context.settings.max_instances
        for name, group in groups.items():
            for replica in group.replicas:
                configure_replica(replica, variants[name])
            if (count := deployments.get_instance_count(variants[name])) > limit:
                group.replicas[0].note(f"{limit} of {count} instances run: the setting max_instances is {limit}")
        if self.async_config is not None:
            client = self.async_config.get("ClientConfig", {})
            concurrency = client.get("MaxConcurrentInvocationsPerInstance", asynchronous.DEFAULT_CONCURRENCY)
            self.queue.set_concurrency(concurrency * max(1, sum(_count_replicas(groups).values())))
            self.queue.wake()

    @contextmanager
    def closing(self) -> Iterator[None]:
        self.queue.stop()
        self.is_in_service.clear()
        self._router = Router()
        yield
        self.queue.close()
        self._observer_maker.close()

    def delete_record(self) -> None:
        delete_record(self._context, self.name)
