"""CreateHyperParameterTuningJob: checks of the request, and the description of a new job.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateHyperParameterTuningJob.html
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.clock import Moment
from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.operations import add_resource
from microjobs_orchestrator.local.resources.training.create import CREATION_MOMENT, check_request
from microjobs_orchestrator.local.resources.tuning import warm_start
from microjobs_orchestrator.local.resources.tuning.kinds import TUNING_JOB
from microjobs_orchestrator.local.resources.tuning.ranges import check_ranges, read_ranges
from microjobs_orchestrator.local.resources.tuning.search import GRID, read_resources
from microjobs_orchestrator.local.state import Record

RESOURCE_MEMBERS = ("ResourceConfig", "HyperParameterTuningResourceConfig")
"""The members of TrainingJobDefinition that can describe the hosts. A request has one of them: the SageMaker SDK sends
the second member."""

OBJECTIVE_HYPERPARAMETER = "_tuning_objective_metric"
"""The hyperparameter that names the objective metric: SageMaker adds it, and SDKs read it when they attach to a job."""


def create(context: Context, request: Mapping[str, Any]) -> Record:
    """Check a CreateHyperParameterTuningJob request and add the job, which does not run yet.

    Raises:
        ValidationError: the ranges, the objective, the inputs or the limits are invalid or contradict each other, or
            a parent in WarmStartConfig is unsuitable.
        ResourceInUseError: a job of that name exists.
    """
    config, definition = request["HyperParameterTuningJobConfig"], request["TrainingJobDefinition"]
    resource_configs = [definition[member] for member in RESOURCE_MEMBERS if member in definition]
    if len(resource_configs) != 1:
        raise ValidationError(f"TrainingJobDefinition needs exactly one of {' and '.join(RESOURCE_MEMBERS)}.")
    static_hyperparameters, metric = (
        definition.get("StaticHyperParameters", {}),
        _read_objective_metric(config, definition),
    )
    _check_search(config, static_hyperparameters)
    check_request(context, {**definition, "TrainingJobName": request["HyperParameterTuningJobName"]})
    warm_start.check(context, request)
    description = {
        **definition,
        "ResourceConfig": resource_configs[0],  # SDKs read this member, even if they have sent the other member
        "OutputDataConfig": {"KmsKeyId": "", **definition["OutputDataConfig"]},
        "StaticHyperParameters": {**static_hyperparameters, OBJECTIVE_HYPERPARAMETER: metric},
    }
    members, internal = {"TrainingJobDefinition": description}, {CREATION_MOMENT: Moment.now().to_members()}
    return add_resource(context, TUNING_JOB, request, members=members, internal=internal)


def _read_objective_metric(config: Mapping[str, Any], definition: Mapping[str, Any]) -> str:
    """Return the name of the objective metric, which one of the MetricDefinitions must have."""
    metric: str = config["HyperParameterTuningJobObjective"]["MetricName"]
    names = [item["Name"] for item in definition["AlgorithmSpecification"].get("MetricDefinitions", [])]
    if metric not in names:
        raise ValidationError(f"Objective metric {metric!r} has no regular expression in MetricDefinitions: {names}.")
    return metric


def _check_search(config: Mapping[str, Any], static_hyperparameters: Mapping[str, str]) -> None:
    ranges = read_ranges(config.get("ParameterRanges", {}))
    if not ranges:
        raise ValidationError("ParameterRanges is empty: add a range for each hyperparameter to tune.")
    counts = Counter([*static_hyperparameters, *(item.name for item in ranges)])
    if duplicates := sorted(name for name, count in counts.items() if count > 1):
        raise ValidationError(
            f"These hyperparameters have more than one range or static value: {', '.join(duplicates)}."
        )
    read_resources(config, static_hyperparameters)
    check_ranges(ranges, config["ResourceLimits"].get("MaxNumberOfTrainingJobs"), is_grid=config["Strategy"] == GRID)
