"""Trials: the training jobs of a tuning job."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from microjobs_orchestrator.runs.backend import Backend
from microjobs_orchestrator.terminal import strip_controls

MAX_TRIALS = 100
"""Maximum number of trials in one List response. The workflows start fewer trials."""


@dataclass(frozen=True)
class Trial:
    name: str
    status: str
    objective: float | None
    hyperparameters: dict[str, str]


def list_trials(backend: Backend, tuning_job: str) -> list[Trial]:
    """Return the trials of a tuning job in the order of their creation."""
    response = backend.sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=tuning_job, SortBy="CreationTime", SortOrder="Ascending", MaxResults=MAX_TRIALS
    )
    return [
        Trial(
            name=summary["TrainingJobName"],
            status=summary["TrainingJobStatus"],
            objective=summary.get("FinalHyperParameterTuningJobObjectiveMetric", {}).get("Value"),
            hyperparameters=dict(summary["TunedHyperParameters"]),
        )
        for summary in response["TrainingJobSummaries"]
    ]


def sort_trials(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that have an objective, lowest objective first."""
    return sorted((trial for trial in trials if trial.objective is not None), key=lambda trial: trial.objective or 0.0)


def make_trial_table(trials: Sequence[Trial], objective_name: str = "objective") -> Table:
    """Return a table with one row per trial: the end of its name, its objective or status, and its hyperparameters."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("trial", no_wrap=True)
    table.add_column(objective_name, justify="right")
    names = list(dict.fromkeys(name for trial in trials for name in trial.hyperparameters))
    for name in names:
        table.add_column(name, justify="right")
    for trial in trials:
        objective_or_status = trial.status if trial.objective is None else f"{trial.objective:.5g}"
        values = (format_value(trial.hyperparameters.get(name, "")) for name in names)
        table.add_row("-".join(trial.name.split("-")[-2:]), objective_or_status, *values)
    return table


def format_value(value: str) -> str:
    """Format a hyperparameter: a number with four significant digits, other text unchanged."""
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return strip_controls(value)
