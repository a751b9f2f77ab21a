"""WarmStartConfig: tuning jobs that start with the results of earlier tuning jobs.

Source: botocore's description of the members.

As on SageMaker, only the training jobs of the parents count, not those of the parents' own parents.
"""

from collections.abc import Callable, Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.operations import find_resource
from microjobs_orchestrator.local.resources.tuning.kinds import TUNING_JOB
from microjobs_orchestrator.local.resources.tuning.ranges import list_tuned_names
from microjobs_orchestrator.local.resources.tuning.results import ENDED_STATUSES, TrialResults, find_parent_requests
from microjobs_orchestrator.local.resources.tuning.search import GRID, TrialSearch
from microjobs_orchestrator.local.state import Record


def check(context: Context, request: Mapping[str, Any]) -> None:
    """Raise ValidationError if a parent does not exist, has not ended or is too different, or the strategy is Grid."""
    config = request.get("WarmStartConfig")
    if config is None:
        return
    if request["HyperParameterTuningJobConfig"]["Strategy"] == GRID:
        raise ValidationError("WarmStartConfig cannot be used with the strategy Grid, which tries every combination.")
    for item in config["ParentHyperParameterTuningJobs"]:
        parent = find_resource(context, TUNING_JOB, item["HyperParameterTuningJobName"])
        if parent.status not in ENDED_STATUSES:
            raise ValidationError(f"Parent tuning job {parent.name} is {parent.status}: it must have ended.")
        _check_parent(request, parent, is_identical=config["WarmStartType"] == "IdenticalDataAndAlgorithm")


def _check_parent(request: Mapping[str, Any], parent: Record, *, is_identical: bool) -> None:
    """Raise ValidationError if a request and the request of its parent differ in a part that must be equal."""
    for part, read in (*EQUAL_PARTS.items(), *(EQUAL_PARTS_IF_IDENTICAL.items() if is_identical else ())):
        own_value, parent_value = read(request), read(parent.request)
        if own_value != parent_value:
            hint = " Or use the WarmStartType TransferLearning." if part in EQUAL_PARTS_IF_IDENTICAL else ""
            raise ValidationError(
                f"The {part} must be the same as in parent tuning job {parent.name}: "
                f"{parent_value}, not {own_value}.{hint}"
            )


def _count_hyperparameters(request: Mapping[str, Any]) -> int:
    names = list_tuned_names(request["HyperParameterTuningJobConfig"]["ParameterRanges"])
    return len(names) + len(request["TrainingJobDefinition"].get("StaticHyperParameters", {}))


def _read_input_data(request: Mapping[str, Any]) -> dict[str, Any]:
    channels = request["TrainingJobDefinition"].get("InputDataConfig", [])
    return {channel["ChannelName"]: channel["DataSource"] for channel in channels}


EQUAL_PARTS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "objective metric": lambda request: request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"],
    "number of static and tunable hyperparameters": _count_hyperparameters,
}
"""Functions that read the parts of a request that must be the same in the parent's request, by the name of the part."""
EQUAL_PARTS_IF_IDENTICAL: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "training image": lambda request: request["TrainingJobDefinition"]["AlgorithmSpecification"]["TrainingImage"],
    "input data": _read_input_data,
}
"""Functions that read the parts that must also be the same if the WarmStartType is IdenticalDataAndAlgorithm."""


def inherit_results(context: Context, request: Mapping[str, Any], search: TrialSearch) -> None:
    """Add the results of the parents' trials to a search."""
    for parent in find_parent_requests(context, request):
        results = TrialResults(context, parent)
        for trial in results.trials:
            if (value := results.find_objective_value(trial)) is not None:
                search.inherit_result(trial.description["HyperParameters"], value)
