"""The kinds of experiments, experiment trials and trial components."""

from microjobs_orchestrator.local.kinds import Kind

TRIAL_COMPONENT = Kind(
    "experiment-trial-component",
    "TrialComponent",
    "trial component",
    verbs=("Describe", "List", "Delete"),
    summaries="TrialComponentSummaries",
    newest_first=True,
    event_name=None,
)
TRIAL = Kind(
    "experiment-trial",
    "Trial",
    "experiment trial",
    verbs=("Describe", "List", "Delete"),
    summaries="TrialSummaries",
    newest_first=True,
    event_name=None,
)
EXPERIMENT = Kind(
    "experiment",
    "Experiment",
    "experiment",
    verbs=("Describe", "List", "Delete"),
    summaries="ExperimentSummaries",
    newest_first=True,
    event_name=None,
)
