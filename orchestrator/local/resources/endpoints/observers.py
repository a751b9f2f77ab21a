"""The observers of an endpoint, which receive each of its exchanges."""

from collections.abc import Mapping, Sequence
from functools import partial

from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints import captures
from microjobs_orchestrator.local.resources.endpoints.capture_writer import CaptureWriter
from microjobs_orchestrator.local.resources.endpoints.captures import CaptureSettings
from microjobs_orchestrator.local.resources.endpoints.deployments import (
    INSTANCE_COUNT,
    Deployment,
    get_variants_by_name,
)
from microjobs_orchestrator.local.resources.endpoints.exchanges import Observer
from microjobs_orchestrator.local.resources.endpoints.invocation_metrics import InvocationMetrics
from microjobs_orchestrator.local.resources.endpoints.routing import ReplicaGroup
from microjobs_orchestrator.local.resources.endpoints.shadows import ShadowCopier, list_shadows


class ObserverMaker:
    """Makes the observers of an endpoint's deployments, and ends their work.

    Args:
        observe: sends an exchange of a shadow variant to the current observers.
    """

    def __init__(self, context: Context, observe: Observer) -> None:
        self._writer = CaptureWriter(context.store)
        self._copier = ShadowCopier(observe)
        self._metrics = InvocationMetrics(context.metrics)

    def make(self, deployment: Deployment, groups: Mapping[str, ReplicaGroup]) -> Sequence[Observer]:
        """Return the observers of a deployment that replaces the current one. Before, store the exchanges that were
        captured for the current deployment.

        Args:
            deployment: the new deployment.
            groups: its replicas, by variant.
        """
        observers: list[Observer] = [self._metrics.record]
        self._metrics.replica_count_by_variant = {
            name: variant.get(INSTANCE_COUNT, 1) for name, variant in get_variants_by_name(deployment).items()
        }
        self._writer.flush()
        config = deployment.get("DataCaptureConfig")
        if config is not None and captures.is_enabled(config):
            observers.append(partial(self._writer.capture, CaptureSettings.read(config)))
        shadows = list_shadows(deployment, groups)
        return [*observers, *(partial(self._copier.copy, shadow) for shadow in shadows)]

    def close(self) -> None:
        """Complete the work of the observers after the last exchange."""
        self._copier.close()
        self._writer.close()
