"""The MLflow run of a training job: MlflowConfig.

AWS documents the members, but not what SageMaker logs. The server creates the run before the hosts start. The hosts
continue it: `mlflow.start_run()` reads its id from a variable. When the job ends, the server adds the hyperparameters
and the metrics of MetricDefinitions that the hosts did not log, and ends the run.

Sources: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_MlflowConfig.html
https://mlflow.org/docs/latest/api_reference/rest-api.html
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.kinds import JobStatus
from microjobs_orchestrator.local.lifecycle.job import JobHandle
from microjobs_orchestrator.local.resources.mlflow import rest_client
from microjobs_orchestrator.local.resources.training.metrics import Point
from microjobs_orchestrator.local.state import Record

MLFLOW_DETAILS = "MlflowDetails"
"""The member of the job's description with the ids of the experiment and the run."""
ADDED_METRICS = "MlflowMetrics"
"""Key of the internal state. Its value lists the names of the metrics that the server adds to the run. After a crash,
the next server must not confuse the points of these metrics with points that the hosts logged."""
JOB_TAG = "sagemaker.training-job-arn"
DEFAULT_EXPERIMENT = "Default"
"""MLflow's experiment of runs without a named experiment."""
MAX_METRICS, MAX_PARAMETERS = 1000, 100
"""MLflow's limits for one request."""
RUN_STATUSES: Mapping[str, str] = {
    JobStatus.COMPLETED: "FINISHED",
    JobStatus.STOPPED: "KILLED",
    JobStatus.FAILED: "FAILED",
}
"""MLflow's final status of a run, by the final status of the job."""


class MlflowRun:
    """The run of a job. Without an MlflowConfig in the job's request, all methods do nothing."""

    def __init__(self, job: JobHandle, record: Record) -> None:
        self._job = job
        self._config: Mapping[str, str] = job.request.get("MlflowConfig", {})
        self._details: Mapping[str, str] = record.description.get(MLFLOW_DETAILS, {})
        self._added_metrics: Sequence[str] | None = record.internal.get(ADDED_METRICS)

    def create(self) -> None:
        """Create the run, unless an earlier server has created it. Raise ServiceError if MLflow cannot create it."""
        if not self._config or self._details:
            return
        name = self._config.get("MlflowExperimentName", DEFAULT_EXPERIMENT)
        experiment_id = self._find_or_create_experiment(name)
        run_id = self._find_run(experiment_id) or self._create_run(experiment_id)
        self._details = {"MlflowExperimentId": experiment_id, "MlflowRunId": run_id}
        self._job.update_description(MlflowDetails=self._details)

    def make_variables(self) -> dict[str, str]:
        """Return the variables that make MLflow in the hosts continue the run."""
        if not self._details:
            return {}
        return {
            **make_variables(self._config["MlflowResourceArn"], self._config.get("MlflowExperimentName")),
            "MLFLOW_RUN_ID": self._details["MlflowRunId"],
        }

    def finish(self, status: str, metrics: Mapping[str, Sequence[Point]]) -> None:
        """Complete and end the run. If MLflow refuses this, note the reason in the job's log.

        Args:
            status: the final status of the job.
            metrics: the points of the MetricDefinitions, by name.
        """
        if not self._details:
            return
        try:
            self._finish(status, metrics)
        except ServiceError as error:
            self._job.note(f"the MLflow run {self._details['MlflowRunId']} could not be completed: {error.message}")

    def _finish(self, status: str, metrics: Mapping[str, Sequence[Point]]) -> None:
        run = self._call("GET", "runs/get", run_id=self._details["MlflowRunId"])["run"]
        logged_names = {
            member: {item["key"] for item in run["data"].get(member, [])} for member in ("params", "metrics")
        }
        parameters = self._job.request.get("HyperParameters", {})
        self._log("params", MAX_PARAMETERS, list_unlogged_parameters(parameters, logged_names["params"]))
        self._log("metrics", MAX_METRICS, self._list_added_points(metrics, logged_names["metrics"]))
        # A script that ends its run sets the status FINISHED. If the job fails or is stopped afterwards, correct it.
        if run["info"]["status"] == "RUNNING" or status != JobStatus.COMPLETED:
            end_milliseconds = int(self._job.compute_end_time() * 1000)
            self._call(
                "POST",
                "runs/update",
                run_id=run["info"]["run_id"],
                status=RUN_STATUSES[status],
                end_time=end_milliseconds,
            )

    def _list_added_points(
        self, metrics: Mapping[str, Sequence[Point]], logged_names: set[str]
    ) -> Iterator[dict[str, Any]]:
        """Yield the points of the metrics that the hosts have not logged. Store the names of these metrics first."""
        if self._added_metrics is None:
            self._added_metrics = [name for name in metrics if name not in logged_names]
            self._job.update_description(internal={ADDED_METRICS: self._added_metrics})
        for name in self._added_metrics:
            for step, (time, value) in enumerate(metrics[name]):
                yield {"key": name, "value": value, "timestamp": int(time * 1000), "step": step}

    def _log(self, member: str, limit: int, items: Iterator[dict[str, Any]]) -> None:
        """Log items as one member of LogBatch requests. MLflow stores a repeated item only once."""
        while batch := list(islice(items, limit)):
            self._call("POST", "runs/log-batch", run_id=self._details["MlflowRunId"], **{member: batch})

    def _find_or_create_experiment(self, name: str) -> str:
        """Return the id of an experiment. Create the experiment if it does not exist."""
        try:
            return str(self._call("POST", "experiments/create", name=name)["experiment_id"])
        except ServiceError as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise
        response = self._call("GET", "experiments/get-by-name", experiment_name=name)
        return str(response["experiment"]["experiment_id"])

    def _find_run(self, experiment_id: str) -> str | None:
        """Return the id of the run that an earlier server created before it was killed; None if there is none."""
        condition = f"tags.`{JOB_TAG}` = '{self._job.arn}' and attributes.start_time = {self._creation_milliseconds}"
        response = self._call("POST", "runs/search", experiment_ids=[experiment_id], filter=condition, max_results=1)
        return next((run["info"]["run_id"] for run in response.get("runs", [])), None)

    def _create_run(self, experiment_id: str) -> str:
        """Create the run, and return its id."""
        name = self._config.get("MlflowRunName", self._job.name)
        tags = [{"key": JOB_TAG, "value": self._job.arn}, {"key": "mlflow.source.name", "value": self._job.name}]
        members = {
            "experiment_id": experiment_id,
            "run_name": name,
            "start_time": self._creation_milliseconds,
            "tags": tags,
        }
        return str(self._call("POST", "runs/create", **members)["run"]["info"]["run_id"])

    @property
    def _creation_milliseconds(self) -> int:
        return int(self._job.created * 1000)

    def _call(self, method: str, path: str, **members: Any) -> Mapping[str, Any]:
        return rest_client.call_api(self._job.context, self._config["MlflowResourceArn"], method, path, members)


def make_variables(arn: str, experiment: str | None) -> dict[str, str]:
    """Return the variables that make MLflow in a host use an MLflow server.

    Args:
        experiment: the name of an experiment; None for MLflow's default.
    """
    return {"MLFLOW_TRACKING_URI": arn, **({"MLFLOW_EXPERIMENT_NAME": experiment} if experiment else {})}


def list_unlogged_parameters(parameters: Mapping[str, str], logged_names: set[str]) -> Iterator[dict[str, str]]:
    """Yield the hyperparameters that are not logged yet: MLflow refuses another value for the same name."""
    return ({"key": name, "value": value} for name, value in parameters.items() if name not in logged_names)
