"""Inference components while they run."""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from microjobs_orchestrator.local.lifecycle.attempt import limit_hosts
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.usage import Meter
from microjobs_orchestrator.local.resources.endpoints.container_replica import ContainerReplica
from microjobs_orchestrator.local.resources.endpoints.deployer import Deployer
from microjobs_orchestrator.local.resources.endpoints.deployments import Deployment
from microjobs_orchestrator.local.resources.endpoints.endpoint import Endpoint
from microjobs_orchestrator.local.resources.endpoints.exchanges import Exchange, InvocationTarget
from microjobs_orchestrator.local.resources.endpoints.fleets import Fleet, PlannedReplica
from microjobs_orchestrator.local.resources.endpoints.invocation_metrics import INVOCATIONS_PER_COPY, InvocationMetrics
from microjobs_orchestrator.local.resources.endpoints.replica import Replica
from microjobs_orchestrator.local.resources.endpoints.routing import (
    ReplicaGroup,
    Router,
    WeightedGroup,
    make_weighted_groups,
)
from microjobs_orchestrator.local.resources.inference_components import specifications
from microjobs_orchestrator.local.resources.inference_components.adapters import AdapterReplica
from microjobs_orchestrator.local.resources.inference_components.kinds import (
    INFERENCE_COMPONENT,
    SERVING_STATUSES,
    InferenceComponentStatus,
)
from microjobs_orchestrator.local.resources.models import serving
from microjobs_orchestrator.local.resources.models.containers import list_containers
from microjobs_orchestrator.local.runtimes.base import Host
from microjobs_orchestrator.local.state import Record

METRICS_NAMESPACE = "/aws/sagemaker/InferenceComponents"
"""CloudWatch's namespace of the metrics of copies."""


class InferenceComponent:
    """A running inference component: the copies of one model on a variant of an endpoint.

    It runs from its creation, or the start of the server, until it is deleted or the server stops.

    Args:
        find_component: returns another running component by name; None if it does not run.
        find_endpoint: returns a running endpoint by name; None if it does not run.
    """

    def __init__(
        self,
        context: Context,
        record: Record,
        find_component: Callable[[str], "InferenceComponent | None"],
        find_endpoint: Callable[[str], Endpoint | None],
    ) -> None:
        self.name = record.name
        self.log_group = INFERENCE_COMPONENT.log_group(record.name)
        self.endpoint: str = record.request["EndpointName"]
        self._variant: str = record.description["VariantName"]
        self.is_in_service = threading.Event()
        self._context = context
        self._find_component = find_component
        self._find_endpoint = partial(find_endpoint, self.endpoint)
        self._deployer = Deployer(context, INFERENCE_COMPONENT, record.name, self)
        self.plan_name = self._deployer.plan_name
        self.events = self._deployer.events
        self.wake = self._deployer.wake
        self.wait_for_start = self._deployer.wait_for_start
        self._copies: Sequence[Replica] = ()
        """The serving copies."""
        self._router = Router()
        self._metrics = InvocationMetrics(context.metrics, INVOCATIONS_PER_COPY)
        dimensions = {"InferenceComponentName": self.name}
        self._meter = Meter(context.metrics, METRICS_NAMESPACE, lambda _: dimensions, context.home.root)

    def run(self) -> None:
        self._deployer.run()

    def recover(self, hosts: Sequence[Host]) -> None:
        self._deployer.recover(hosts)

    def choose_replica(self, target: InvocationTarget, tried_replicas: Collection[Replica] = ()) -> Replica | None:
        """Return a copy for a request, if possible none of `tried_replicas`; None if no copy serves the target."""
        return self._router.choose_replica(target.variant, tried_replicas)

    def _is_routed_randomly(self, variant: str) -> bool:
        endpoint = self._find_endpoint()
        return endpoint is not None and variant in endpoint.randomly_routed_variants

    def routes_to(self, replica: Replica) -> bool:
        """Return whether a copy still receives requests."""
        return self._router.routes_to(replica)

    def has_other_replica(self, tried_replicas: Sequence[Replica]) -> bool:
        """Return whether another copy can receive a request that did not reach `tried_replicas`."""
        return self._router.has_other_replica(tried_replicas)

    def list_copies(self) -> Sequence[Replica]:
        """Return the serving copies."""
        return self._copies

    def has_serving_status(self) -> bool:
        """Return whether the component is in service according to its status, even if no copy responds yet."""
        record = self._context.state.get(INFERENCE_COMPONENT.arn_type, self.name)
        return record is not None and record.status in SERVING_STATUSES

    def explain_missing_replica(self, target: InvocationTarget) -> str:
        """Return the reason why `choose_replica` returns None."""
        if target.variant not in (None, self._variant):
            return f"Inference Component {self.name} is on variant {self._variant}, not on {target.variant}."
        record = self._context.state.get(INFERENCE_COMPONENT.arn_type, self.name)
        if record is not None and record.status != InferenceComponentStatus.IN_SERVICE:
            return f"Inference Component {self.name} is {record.status}: it must be InService."
        return (
            "Inference Component has no capacity to process this request: it has no copies. Increase CopyCount with "
            "UpdateInferenceComponentRuntimeConfig."
        )

    def observe(self, exchange: Exchange) -> None:
        """Send an exchange to the observers of the endpoint, and record it in the metrics of the component."""
        if (endpoint := self._find_endpoint()) is not None:
            endpoint.observe(exchange)
        self._metrics.record(exchange, {"InferenceComponentName": self.name})

    # --- methods that the deployer calls ---

    def list_planned_replicas(self, deployment: Deployment) -> Sequence[PlannedReplica]:
        return [
            PlannedReplica(
                f"{self.plan_name}/{copy_id}",
                instance_id=copy_id,
                group_name=f"inference component {self.name}",
                make=partial(self._make_adapter if "Base" in deployment else self._make_copy, deployment, copy_id),
            )
            for copy_id in deployment["Copies"]
        ]

    def _make_adapter(self, deployment: Deployment, copy_id: str) -> Replica:
        plan_name = f"{self.plan_name}/{copy_id}"
        (container,) = list_containers(deployment["Model"])

        def make_folder() -> Path:
            return serving.prepare_model_data(
                self._context, container, self._context.make_work_folder(plan_name) / "adapter"
            )

        def note(sentence: str) -> None:
            self._context.logs.create(self.log_group, f"{self._variant}/{copy_id}").note(sentence)

        find_base = partial(self._find_component, deployment["Base"])
        return AdapterReplica(self.name, plan_name, copy_id, find_base, make_folder, note, self.wake)

    def _make_copy(self, deployment: Deployment, copy_id: str) -> Replica:
        specification = deployment["Specification"]
        attempt = serving.make_attempt(
            self._context,
            deployment["Model"],
            f"{self.plan_name}/{copy_id}",
            [copy_id],
            deployment["InstanceType"],
            lambda instance, suffix: self._context.logs.create(self.log_group, f"{self._variant}/{instance}{suffix}"),
        )
        return ContainerReplica(
            self._context,
            deployment["Model"],
            limit_hosts(replace(attempt, meter=self._meter), specifications.read_limits(specification)),
            self._variant,
            copy_id,
            specifications.read_timeout(specification),
            self.wake,
        )

    def get_capacity(self, deployment: Deployment) -> int:
        return len(deployment["Copies"])

    def put_in_service(self, fleet: Fleet, next_fleet: Fleet | None = None) -> Mapping[str, Any]:
        fleets = [fleet] if next_fleet is None else [fleet, next_fleet]
        self._router = Router([group for each in fleets for group in self._make_weighted_groups(each)])
        self._copies = tuple(copy for each in fleets for copy in each.replicas.values())
        self._metrics.replica_count_by_variant = {self._variant: len(self._copies)}
        self.is_in_service.set()
        members = specifications.describe(fleet.deployment, serving_count=len(self._copies))
        members["RuntimeConfig"]["DesiredCopyCount"] = self.get_capacity((next_fleet or fleet).deployment)
        return members

    def _make_weighted_groups(self, fleet: Fleet) -> Sequence[WeightedGroup]:
        copies = tuple(fleet.replicas.values())
        groups = {self._variant: ReplicaGroup(self._variant, copies, self._is_routed_randomly)} if copies else {}
        return make_weighted_groups(groups, {self._variant: 1.0}, fleet.share)

    @contextmanager
    def closing(self) -> Iterator[None]:
        self.is_in_service.clear()
        self._copies, self._router = (), Router()
        yield

    def delete_record(self) -> None:
        self._context.state.delete(INFERENCE_COMPONENT.arn_type, self.name)
