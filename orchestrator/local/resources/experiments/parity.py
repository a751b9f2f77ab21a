"""Parity rows of experiments, experiment trials and trial components."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity.common import METADATA, PAGE_MEMBERS, TAGS, make_honoured_rows
from microjobs_orchestrator.local.parity.rows import Members, Rows

LIST_ROWS = make_honoured_rows(*PAGE_MEMBERS, "CreatedAfter", "CreatedBefore")
COMPONENT: Rows = {
    **make_honoured_rows("TrialComponentName", "DisplayName", "StartTime", "EndTime"),
    "Status": Members(make_honoured_rows("PrimaryStatus", "Message")),
    **make_honoured_rows("Parameters", "InputArtifacts", "OutputArtifacts"),
}

ROWS: Mapping[str, Rows] = {
    "CreateExperiment": {**make_honoured_rows("ExperimentName", "DisplayName", "Description"), "Tags": TAGS},
    "UpdateExperiment": make_honoured_rows("ExperimentName", "DisplayName", "Description"),
    "ListExperiments": LIST_ROWS,
    "CreateTrial": {
        **make_honoured_rows("TrialName", "DisplayName", "ExperimentName"),
        "MetadataProperties": METADATA,
        "Tags": TAGS,
    },
    "UpdateTrial": make_honoured_rows("TrialName", "DisplayName"),
    "ListTrials": {**LIST_ROWS, **make_honoured_rows("ExperimentName", "TrialComponentName")},
    "CreateTrialComponent": {**COMPONENT, "MetadataProperties": METADATA, "Tags": TAGS},
    "UpdateTrialComponent": {
        **COMPONENT,
        **make_honoured_rows("ParametersToRemove", "InputArtifactsToRemove", "OutputArtifactsToRemove"),
    },
    "ListTrialComponents": {**LIST_ROWS, **make_honoured_rows("ExperimentName", "TrialName", "SourceArn")},
    "AssociateTrialComponent": make_honoured_rows("TrialComponentName", "TrialName"),
    "DisassociateTrialComponent": make_honoured_rows("TrialComponentName", "TrialName"),
}
