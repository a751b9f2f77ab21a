"""WarmStartConfig: tuning jobs that start with the results of earlier ones. Source: botocore's model.

Only the parents' own training jobs count, not those of their parents, as on SageMaker.
"""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.records import find_resource
from microjobs_orchestrator.local.resources.tuning import search
from microjobs_orchestrator.local.resources.tuning.kinds import TUNING_JOB
from microjobs_orchestrator.local.resources.tuning.ranges import tuned_names
from microjobs_orchestrator.local.resources.tuning.results import OVER, Results, parents
from microjobs_orchestrator.local.state import Record


def check(context: Context, request: Mapping[str, Any]) -> None:
    """Raise ValidationError if a parent does not exist, has not ended, or is too different."""
    config = request.get("WarmStartConfig")
    if config is None:
        return
    if request["HyperParameterTuningJobConfig"]["Strategy"] == search.GRID:
        raise ValidationError("WarmStartConfig cannot be used with the strategy Grid, which tries every combination.")
    for parent in config["ParentHyperParameterTuningJobs"]:
        name = parent.get("HyperParameterTuningJobName", "")
        record = find_resource(context, TUNING_JOB, name)
        if record.status not in OVER:
            raise ValidationError(f"Parent tuning job {name} is {record.status}: it must have ended.")
        _check_alike(request, record)
        if config["WarmStartType"] == "IdenticalDataAndAlgorithm":
            _check_identical(request, record)


def _check_alike(request: Mapping[str, Any], parent: Record) -> None:
    objectives = [_objective(asked) for asked in (request, parent.request)]
    if objectives[0] != objectives[1]:
        raise ValidationError(
            f"The objective metric must be the same as of parent tuning job {parent.name}: {objectives[1]}."
        )
    here, there = (len(_names(asked)) for asked in (request, parent.request))
    if here != there:
        raise ValidationError(
            f"The number of static and tunable hyperparameters must be the same as of parent tuning job {parent.name}: "
            f"{there}, not {here}."
        )


def _check_identical(request: Mapping[str, Any], parent: Record) -> None:
    for what, read in (("training image", _image), ("input data", _data)):
        if read(request) != read(parent.request):
            raise ValidationError(
                f"The {what} must be the same as of parent tuning job {parent.name} for the WarmStartType "
                "IdenticalDataAndAlgorithm: use TransferLearning."
            )


def _objective(request: Mapping[str, Any]) -> Any:
    return request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]


def _names(request: Mapping[str, Any]) -> list[str]:
    names = tuned_names(request["HyperParameterTuningJobConfig"]["ParameterRanges"])
    return [*names, *request["TrainingJobDefinition"].get("StaticHyperParameters", {})]


def _image(request: Mapping[str, Any]) -> Any:
    return request["TrainingJobDefinition"]["AlgorithmSpecification"].get("TrainingImage")


def _data(request: Mapping[str, Any]) -> Any:
    channels = request["TrainingJobDefinition"].get("InputDataConfig", [])
    return {channel["ChannelName"]: channel["DataSource"] for channel in channels}


def teach(context: Context, request: Mapping[str, Any], chooser: search.Search) -> None:
    """Add the results of the parents' trials to a search."""
    for parent in parents(context, request):
        results = Results(context, parent)
        for job in results.jobs:
            if (value := results.objective_value(job)) is not None:
                chooser.inherit(job.description["HyperParameters"], value)
