"""CreateHyperParameterTuningJob: checks of the request, and the description of a new job.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateHyperParameterTuningJob.html
"""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.clock import Moment
from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle import outputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.records import add_resource
from microjobs_orchestrator.local.resources.training import time_limits
from microjobs_orchestrator.local.resources.training.channels import check_channels
from microjobs_orchestrator.local.resources.tuning import hyperband, search, warm_start
from microjobs_orchestrator.local.resources.tuning.definition import (
    OBJECTIVE,
    RESOURCES,
    host_resources,
    static_hyperparameters,
)
from microjobs_orchestrator.local.resources.tuning.kinds import TUNING_JOB
from microjobs_orchestrator.local.resources.tuning.ranges import check_grid, check_ranges, read_ranges
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.state import Record

CREATED = "CreationMoment"
"""Key of the internal state for the time of the job's creation, as `Moment.stored` returns it."""


def create(context: Context, request: Mapping[str, Any]) -> Record:
    """Check a CreateHyperParameterTuningJob request and add the job, which does not run yet.

    Raises:
        ValidationError: the ranges, the objective, the inputs or the limits are invalid or contradict each other.
        ResourceInUseError: a job of that name exists.
    """
    config = request["HyperParameterTuningJobConfig"]
    definition = request.get("TrainingJobDefinition")
    if definition is None:
        raise ValidationError("TrainingJobDefinition is required.")
    if "HyperParameterTuningJobObjective" not in config:
        raise ValidationError("HyperParameterTuningJobConfig.HyperParameterTuningJobObjective is required.")
    _check(context, config, definition)
    warm_start.check(context, request)
    members = {
        "TrainingJobDefinition": {
            **definition,
            "ResourceConfig": host_resources(definition),  # SDKs read it, but send the other member of RESOURCES
            "OutputDataConfig": {"KmsKeyId": "", **definition["OutputDataConfig"]},
            "StaticHyperParameters": {
                **static_hyperparameters(definition),
                OBJECTIVE: config["HyperParameterTuningJobObjective"]["MetricName"],
            },
        },
    }
    internal = {CREATED: Moment.now().stored()}
    return add_resource(context, TUNING_JOB, request, members=members, internal=internal)


def _check(context: Context, config: Mapping[str, Any], definition: Mapping[str, Any]) -> None:
    ranges = read_ranges(config.get("ParameterRanges", {}))
    if not ranges:
        raise ValidationError("ParameterRanges names no hyperparameter to tune.")
    names = [item.name for item in ranges]
    if duplicates := sorted(
        {name for name in names if names.count(name) > 1 or name in static_hyperparameters(definition)}
    ):
        raise ValidationError(f"Hyperparameter {', '.join(duplicates)} is given more than once.")
    hyperband.read(config, static_hyperparameters(definition))
    max_jobs = config["ResourceLimits"].get("MaxNumberOfTrainingJobs")
    if config["Strategy"] == search.GRID:
        check_grid(ranges, max_jobs)
    elif max_jobs is None:
        raise ValidationError("ResourceLimits.MaxNumberOfTrainingJobs is required.")
    check_ranges(ranges, max_jobs or 1)
    if len([member for member in RESOURCES if member in definition]) != 1:
        raise ValidationError(f"TrainingJobDefinition needs one of {' and '.join(RESOURCES)}.")
    metric = config["HyperParameterTuningJobObjective"]["MetricName"]
    metric_names = [item["Name"] for item in definition["AlgorithmSpecification"].get("MetricDefinitions", [])]
    if metric not in metric_names:
        raise ValidationError(
            f"Objective metric {metric!r} has no regular expression in MetricDefinitions: {metric_names}."
        )
    time_limits.check(definition)
    check_channels(definition, context.store)
    context.store.check_writable(
        *parse_uri(outputs.join(definition["OutputDataConfig"]["S3OutputPath"], "model.tar.gz"))
    )
