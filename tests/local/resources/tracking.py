"""The operations on experiments and lineage, for tests without hosts."""

from typing import Any

from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.protocols.validation import validate
from microjobs_orchestrator.local.resources.operations import load_operations
from microjobs_orchestrator.local.services.sagemaker import SageMaker
from microjobs_orchestrator.local.services.sagemaker_metrics import SageMakerMetrics
from tests.local.jobs.conftest import ServerParts


class Tracking:
    """Calls the operations of a server, after a check that botocore's model accepts the request."""

    def __init__(self, parts: ServerParts) -> None:
        self.parts = parts
        context = parts.context
        self._handlers = SageMaker(context, load_operations(context, parts.registry)).list_handlers()
        self.metrics = SageMakerMetrics(context.state, context.metrics)

    def call(self, operation: str, **members: Any) -> dict[str, Any]:
        validate(load_operation_model("sagemaker", operation), members)
        return dict(self._handlers[operation](members))

    def add_trial(self, trial: str = "t", experiment: str = "e", *components: str) -> None:
        """Create an experiment trial, and associate components with it. Create missing experiments and components."""
        if self.parts.context.state.get("experiment", experiment) is None:
            self.call("CreateExperiment", ExperimentName=experiment)
        self.call("CreateTrial", TrialName=trial, ExperimentName=experiment)
        for component in components:
            if self.parts.context.state.get("experiment-trial-component", component) is None:
                self.call("CreateTrialComponent", TrialComponentName=component)
            self.call("AssociateTrialComponent", TrialComponentName=component, TrialName=trial)

    def list_names(self, noun: str, **filters: Any) -> list[str]:
        """Return the names of listed resources. `noun` is the noun of their kind, such as `TrialComponent`."""
        response = self.call(f"List{noun}s", **filters)
        return [item[f"{noun}Name"] for item in response[f"{noun}Summaries"]]

    def describe(self, component: str) -> dict[str, Any]:
        return self.call("DescribeTrialComponent", TrialComponentName=component)
