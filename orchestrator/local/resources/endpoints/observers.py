"""The observers of an endpoint, which receive each of its exchanges."""

from collections.abc import Sequence
from functools import partial

from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints import captures
from microjobs_orchestrator.local.resources.endpoints.capture_writer import CaptureWriter
from microjobs_orchestrator.local.resources.endpoints.captures import CaptureSettings
from microjobs_orchestrator.local.resources.endpoints.deployments import Deployment
from microjobs_orchestrator.local.resources.endpoints.exchanges import Observer


class Observers:
    """Makes the observers of an endpoint's deployments, and ends their work."""

    def __init__(self, context: Context) -> None:
        self._writer = CaptureWriter(context.store)

    def make(self, deployment: Deployment) -> Sequence[Observer]:
        """Return the observers of a deployment, which replaces an earlier one."""
        observers: list[Observer] = []
        self._writer.flush()
        config = deployment.get("DataCaptureConfig")
        if config is not None and captures.is_enabled(config):
            observers.append(partial(self._writer.capture, CaptureSettings.read(config)))
        return observers

    def close(self) -> None:
        """Complete the work of the observers after the last exchange."""
        self._writer.close()
