"""Associations of trial components with experiment trials, here *trials*. A component may be in several trials.

Each association is a record. Its owner is the trial, and its name begins with the name of the component.
"""

from collections.abc import Sequence

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.experiments.kinds import EXPERIMENT, TRIAL, TRIAL_COMPONENT
from microjobs_orchestrator.local.state import Owner, Query, Record

ASSOCIATION = "trial-association"
MAX_TRIALS = 50
"""Maximum number of trials of one component, as on AWS."""


def find_record(context: Context, arn_type: str, name: str) -> Record:
    """Return the record of an experiment, a trial or a component, by its name or its ARN.

    Raise ResourceNotFound if it does not exist.
    """
    name = name.rpartition("/")[2]
    if (record := context.state.get(arn_type, name)) is None:
        noun = arn_type.removeprefix("experiment-").replace("-", " ")
        raise ServiceError("ResourceNotFound", f"{noun.capitalize()} {name} does not exist.", 404)
    return record


def associate(context: Context, component: str, trial: str) -> None:
    """Add a component to a trial, as a part of the caller's transaction. Change nothing if the component is in the
    trial already.

    Raise ResourceLimitExceeded if the component is in MAX_TRIALS other trials.
    """
    trials = list_trial_names_of_component(context, component)
    if trial in trials:
        return
    if len(trials) >= MAX_TRIALS:
        raise ServiceError("ResourceLimitExceeded", f"Trial component {component} is in {MAX_TRIALS} trials already.")
    context.state.add(ASSOCIATION, f"{component}/{trial}", "", "", {}, {}, owner=Owner(TRIAL.arn_type, trial))


def disassociate(context: Context, component: str, trial: str) -> None:
    """Remove a component from a trial. Raise ResourceNotFound if the component is not in the trial."""
    if not context.state.delete(ASSOCIATION, f"{component}/{trial}"):
        raise ServiceError("ResourceNotFound", f"Trial component {component} is not in trial {trial}.", 404)


def list_trial_names_of_component(context: Context, component: str) -> Sequence[str]:
    """Return the names of a component's trials."""
    query = Query(ASSOCIATION, name_prefix=f"{component}/", descending=False, limit=-1)
    return [record.name.rpartition("/")[2] for record in context.state.find(query)]


def list_component_names_of_trial(context: Context, trial: str) -> Sequence[str]:
    """Return the names of a trial's components."""
    query = Query(ASSOCIATION, owner=Owner(TRIAL.arn_type, trial), descending=False, limit=-1)
    return [record.name.partition("/")[0] for record in context.state.find(query)]


def list_trials_of_experiment(context: Context, experiment: str) -> Sequence[Record]:
    """Return the trials of an experiment."""
    query = Query(TRIAL.arn_type, owner=Owner(EXPERIMENT.arn_type, experiment), descending=False, limit=-1)
    return context.state.find(query)


def list_parents(context: Context, component: str) -> Sequence[dict[str, str]]:
    """Return the trials of a component with their experiments, as Search describes them."""
    trials = [context.state.get(TRIAL.arn_type, name) for name in list_trial_names_of_component(context, component)]
    return [
        {"TrialName": trial.name, "ExperimentName": trial.request["ExperimentName"]}
        for trial in trials
        if trial is not None
    ]


def find_components(context: Context, names: Sequence[str]) -> list[Record]:
    """Return the components with these names that still exist."""
    records = [context.state.get(TRIAL_COMPONENT.arn_type, name) for name in dict.fromkeys(names)]
    return [record for record in records if record is not None]
