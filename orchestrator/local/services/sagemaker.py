"""SageMaker's operations. Requests are valid when they come here: `protocol.validation` and `parity` have seen them."""

from collections.abc import Callable, Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.resources.endpoints import endpoint as endpoints
from microjobs_orchestrator.local.resources.endpoints import requests as endpoint_requests
from microjobs_orchestrator.local.resources.models.create import create as create_model
from microjobs_orchestrator.local.resources.processing import job as processing
from microjobs_orchestrator.local.resources.processing.create import create as create_processing_job
from microjobs_orchestrator.local.resources.training import job as training
from microjobs_orchestrator.local.resources.training.create import create as create_training_job
from microjobs_orchestrator.local.resources.transform import job as transform
from microjobs_orchestrator.local.resources.transform.create import create as create_transform_job
from microjobs_orchestrator.local.resources.tuning import job as tuning
from microjobs_orchestrator.local.resources.tuning.create import create as create_tuning_job
from microjobs_orchestrator.local.resources.tuning.results import Results
from microjobs_orchestrator.local.services import listing
from microjobs_orchestrator.local.services.listing import (
    CONFIG,
    ENDPOINT,
    MODEL,
    PROCESSING,
    TRAINING,
    TRANSFORM,
    TUNING,
    Kind,
    find,
    members,
    shown,
)
from microjobs_orchestrator.local.state import Record

Request = Mapping[str, Any]
Answer = Mapping[str, Any]
Handler = Callable[[dict[str, Any]], Answer]

JOBS = (PROCESSING, TRAINING, TUNING, TRANSFORM)
OVER = ("Completed", "Failed", "Stopped")


class SageMaker:
    """The operations, over the server's state and what runs."""

    def __init__(self, context: Context, registry: Registry) -> None:
        self._context = context
        self._state = context.state
        self._registry = registry

    def operations(self) -> dict[str, Handler]:
        table: dict[str, Handler] = {
            "CreateProcessingJob": self.create_processing_job,
            "CreateTrainingJob": self.create_training_job,
            "UpdateTrainingJob": self.update_training_job,
            "CreateHyperParameterTuningJob": self.create_tuning_job,
            "CreateTransformJob": self.create_transform_job,
            "CreateModel": self.create_model,
            "CreateEndpointConfig": self.create_endpoint_config,
            "CreateEndpoint": self.create_endpoint,
            "UpdateEndpoint": self.update_endpoint,
            "UpdateEndpointWeightsAndCapacities": self.update_endpoint_weights,
            "DeleteModel": self._deleter(MODEL),
            "DeleteEndpointConfig": self._deleter(CONFIG),
            "DeleteEndpoint": self.delete_endpoint,
            "DeleteProcessingJob": self._deleter(PROCESSING),
            "DeleteTrainingJob": self._deleter(TRAINING),
            "DeleteHyperParameterTuningJob": self._deleter(TUNING),
            "ListTrainingJobsForHyperParameterTuningJob": self.list_training_jobs_for_tuning_job,
            "AddTags": self.add_tags,
            "ListTags": self.list_tags,
            "DeleteTags": self.delete_tags,
        }
        for kind in (*JOBS, MODEL, CONFIG, ENDPOINT):
            table[f"Describe{kind.noun}"] = self._describer(kind)
            table[f"List{kind.noun}s"] = self._lister(kind)
        for kind in JOBS:
            table[f"Stop{kind.noun}"] = self._stopper(kind)
        return table

    # --- jobs ---

    def create_processing_job(self, request: Request) -> Answer:
        record = create_processing_job(self._context, request)
        self._registry.start(processing.ProcessingJob(self._context, record))
        return {"ProcessingJobArn": record.arn}

    def create_training_job(self, request: Request) -> Answer:
        record = create_training_job(self._context, request)
        self._registry.start(training.TrainingJob(self._context, record))
        return {"TrainingJobArn": record.arn}

    def update_training_job(self, request: Request) -> Answer:
        """What can be updated has no effect: a profiler's settings, and how long instances are kept."""
        record = find(self._state, TRAINING, request["TrainingJobName"])
        given = {name: request[name] for name in ("ProfilerConfig", "ProfilerRuleConfigurations") if name in request}
        resources = {**record.description["ResourceConfig"], **request.get("ResourceConfig", {})}
        self._state.update(TRAINING.kind, record.name, {**given, "ResourceConfig": resources})
        return {"TrainingJobArn": record.arn}

    def create_tuning_job(self, request: Request) -> Answer:
        record = create_tuning_job(self._context, request)
        self._registry.start(tuning.TuningJob(self._context, record, self._registry))
        return {"HyperParameterTuningJobArn": record.arn}

    def create_transform_job(self, request: Request) -> Answer:
        record = create_transform_job(self._context, request)
        self._registry.start(transform.TransformJob(self._context, record))
        return {"TransformJobArn": record.arn}

    def _stopper(self, kind: Kind) -> Handler:
        def stop(request: Request) -> Answer:
            name = request[kind.name]
            stopping: dict[str, Any] = {kind.status: "Stopping"}
            if kind is TRAINING:
                stopping["SecondaryStatus"] = "Stopping"
            find(self._state, kind, name)
            if self._state.update(kind.kind, name, stopping, "Stopping", only_if=("InProgress", "Stopping")) is None:
                status = find(self._state, kind, name).status
                raise ValidationError(f"The request was rejected because the {kind.words} is in status {status}.")
            self._registry.stop(f"{kind.kind}/{name}")
            return {}

        return stop

    def list_training_jobs_for_tuning_job(self, request: Request) -> Answer:
        record = find(self._state, TUNING, request["HyperParameterTuningJobName"])
        results = Results(self._context, record.request)
        summaries = [results.summary(job) for job in results.jobs]
        status = request.get("StatusEquals")
        chosen = [item for item in summaries if status in (None, item["TrainingJobStatus"])]
        sort_by = request.get("SortBy", "Name")
        chosen.sort(key=_SUMMARY_KEYS[sort_by], reverse=request.get("SortOrder", "Ascending") == "Descending")
        page, more = listing.page(chosen, request)
        return {"TrainingJobSummaries": page, **more}

    # --- hosting ---

    def create_model(self, request: Request) -> Answer:
        return {"ModelArn": create_model(self._context, request).arn}

    def create_endpoint_config(self, request: Request) -> Answer:
        return {"EndpointConfigArn": endpoint_requests.create_config(self._context, request).arn}

    def create_endpoint(self, request: Request) -> Answer:
        record = endpoint_requests.create(self._context, request)
        self._registry.start(endpoints.Endpoint(self._context, record))
        return {"EndpointArn": record.arn}

    def update_endpoint(self, request: Request) -> Answer:
        find(self._state, ENDPOINT, request["EndpointName"])
        return {"EndpointArn": endpoint_requests.update(self._context, self._registry, request).arn}

    def update_endpoint_weights(self, request: Request) -> Answer:
        find(self._state, ENDPOINT, request["EndpointName"])
        return {"EndpointArn": endpoint_requests.reweigh(self._context, self._registry, request).arn}

    def delete_endpoint(self, request: Request) -> Answer:
        find(self._state, ENDPOINT, request["EndpointName"])
        endpoint_requests.delete(self._context, self._registry, request["EndpointName"])
        return {}

    # --- the same for all kinds ---

    def _describer(self, kind: Kind) -> Handler:
        def describe(request: Request) -> Answer:
            record = find(self._state, kind, request[kind.name])
            return shown(f"Describe{kind.noun}", {**members(record), **self._more(record)})

        return describe

    def _lister(self, kind: Kind) -> Handler:
        def list_all(request: Request) -> Answer:
            return listing.list_resources(self._state, kind, request, self._more)

        return list_all

    def _more(self, record: Record) -> Mapping[str, Any]:
        """What follows from a tuning job's request and training jobs; nothing for other kinds."""
        if record.kind != TUNING.kind:
            return {}
        config = record.request["HyperParameterTuningJobConfig"]
        return {**config, **Results(self._context, record.request).describe()}

    def _deleter(self, kind: Kind) -> Handler:
        def delete(request: Request) -> Answer:
            record = find(self._state, kind, request[kind.name])
            if kind in JOBS and record.status not in OVER:
                raise ValidationError(
                    f"The request was rejected because the {kind.words} is in status {record.status}: stop it first."
                )
            # Until then, a new job of this name would lose its containers to the old one's removal.
            if not self._registry.wait(f"{kind.kind}/{record.name}"):
                raise ValidationError(f"What {record.name} left is still being removed: try again.")
            self._state.delete(kind.kind, record.name, record.created)
            return {}

        return delete

    # --- tags ---

    def add_tags(self, request: Request) -> Answer:
        arn = self._existing(request["ResourceArn"])
        self._state.add_tags(arn, request["Tags"])
        return {"Tags": self._state.tags(arn)}

    def list_tags(self, request: Request) -> Answer:
        tags, more = listing.page(self._state.tags(self._existing(request["ResourceArn"])), request)
        return {"Tags": tags, **more}

    def delete_tags(self, request: Request) -> Answer:
        self._state.delete_tags(self._existing(request["ResourceArn"]), request["TagKeys"])
        return {}

    def _existing(self, arn: str) -> str:
        if not self._state.has_arn(arn):
            raise ValidationError(f'Could not find resource "{arn}": there is none of that ARN here.')
        return arn


def _objective(summary: Mapping[str, Any]) -> float:
    metric = summary.get("FinalHyperParameterTuningJobObjectiveMetric")
    return float(metric["Value"]) if metric else float("inf")


_SUMMARY_KEYS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "Name": lambda item: item["TrainingJobName"],
    "CreationTime": lambda item: item["CreationTime"],
    "Status": lambda item: item["TrainingJobStatus"],
    "FinalObjectiveMetricValue": _objective,
}
