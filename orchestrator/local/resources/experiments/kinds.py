"""The kinds of experiments, experiment trials and trial components."""

from microjobs_orchestrator.local.kinds import Kind

TRIAL_COMPONENT = Kind(
    arn_type="experiment-trial-component",
    noun="TrialComponent",
    title="trial component",
    verbs=("Describe", "List", "Delete"),
    summaries="TrialComponentSummaries",
    newest_first=True,
    event_name=None,
)
TRIAL = Kind(
    arn_type="experiment-trial",
    noun="Trial",
    title="experiment trial",
    verbs=("Describe", "List", "Delete"),
    summaries="TrialSummaries",
    newest_first=True,
    event_name=None,
)
EXPERIMENT = Kind(
    arn_type="experiment",
    noun="Experiment",
    title="experiment",
    verbs=("Describe", "List", "Delete"),
    summaries="ExperimentSummaries",
    newest_first=True,
    event_name=None,
)
