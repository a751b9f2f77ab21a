"""The operations on hyperparameter tuning jobs."""

from collections.abc import Callable, Mapping
from typing import Any

from microjobs_orchestrator.local.lifecycle.registry import Runnable
from microjobs_orchestrator.local.pages import cut_page
from microjobs_orchestrator.local.resources.operations import Handler, Request, Response, RunningOperations
from microjobs_orchestrator.local.resources.tuning.create import create
from microjobs_orchestrator.local.resources.tuning.job import TuningJob
from microjobs_orchestrator.local.resources.tuning.kinds import TUNING_JOB
from microjobs_orchestrator.local.resources.tuning.results import FINAL_METRIC, TrialResults
from microjobs_orchestrator.local.state import Record


class TuningJobOperations(RunningOperations):
    kind = TUNING_JOB

    def add(self, request: Request) -> Record:
        return create(self.context, request)

    def make_runnable(self, record: Record) -> Runnable:
        return TuningJob(self.context, record, self.registry)

    def compute_members(self, record: Record) -> Mapping[str, Any]:
        """Return the members that depend on the request and on the training jobs."""
        config = record.request["HyperParameterTuningJobConfig"]
        return {**config, **TrialResults(self.context, record.request).describe()}

    def list_additional_handlers(self) -> Mapping[str, Handler]:
        return {"ListTrainingJobsForHyperParameterTuningJob": self.list_training_jobs}

    def list_training_jobs(self, request: Request) -> Response:
        results = TrialResults(self.context, self.find(request).request)
        status, sort_by = request.get("StatusEquals"), request.get("SortBy", "Name")
        summaries = [results.summarize(trial) for trial in results.trials]
        summaries = [item for item in summaries if status in (None, item["TrainingJobStatus"])]
        summaries.sort(key=_SORT_KEYS[sort_by], reverse=request.get("SortOrder", "Ascending") == "Descending")
        page, token = cut_page(summaries, request)
        return {"TrainingJobSummaries": page, **token}


_SORT_KEYS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "Name": lambda item: item["TrainingJobName"],
    "CreationTime": lambda item: item["CreationTime"],
    "Status": lambda item: item["TrainingJobStatus"],
    "FinalObjectiveMetricValue": lambda item: item[FINAL_METRIC]["Value"] if FINAL_METRIC in item else float("inf"),
}
