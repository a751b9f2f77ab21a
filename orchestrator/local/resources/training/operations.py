"""The operations on training jobs."""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.lifecycle.registry import Runnable
from microjobs_orchestrator.local.resources.operations import Handler, Request, Response, RunningOperations
from microjobs_orchestrator.local.resources.training.create import create
from microjobs_orchestrator.local.resources.training.job import TrainingJob
from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB
from microjobs_orchestrator.local.state import Record


class TrainingJobOperations(RunningOperations):
    kind = TRAINING_JOB

    def add(self, request: Request) -> Record:
        return create(self.context, request)

    def make_runnable(self, record: Record) -> Runnable:
        return TrainingJob(self.context, record)

    def make_stopping_members(self) -> Mapping[str, Any]:
        return {**super().make_stopping_members(), "SecondaryStatus": "Stopping"}

    def list_additional_handlers(self) -> Mapping[str, Handler]:
        return {"UpdateTrainingJob": self.update}

    def update(self, request: Request) -> Response:
        """Change the description only: profiler settings and KeepAlivePeriodInSeconds have no effect."""
        record = self.find(request)
        profiler = {name: request[name] for name in ("ProfilerConfig", "ProfilerRuleConfigurations") if name in request}
        resources = {**record.description["ResourceConfig"], **request.get("ResourceConfig", {})}
        self.context.state.update(self.kind.arn_type, record.name, {**profiler, "ResourceConfig": resources})
        return {"TrainingJobArn": record.arn}
