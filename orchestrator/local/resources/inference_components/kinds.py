"""The kind of inference components."""

from enum import StrEnum

from microjobs_orchestrator.local.kinds import Kind, Lifecycle, LogNames


class InferenceComponentStatus(StrEnum):
    """AWS's statuses of inference components."""

    CREATING = "Creating"
    UPDATING = "Updating"
    IN_SERVICE = "InService"
    DELETING = "Deleting"
    FAILED = "Failed"


_CREATING_OR_UPDATING = (InferenceComponentStatus.CREATING, InferenceComponentStatus.UPDATING)
_RUNNING = tuple(InferenceComponentStatus)

INFERENCE_COMPONENT = Kind(
    "inference-component",
    "InferenceComponent",
    "inference component",
    lifecycle=Lifecycle(
        statuses=tuple(InferenceComponentStatus),
        first=InferenceComponentStatus.CREATING,
        success=InferenceComponentStatus.IN_SERVICE,
        transitional=(*_CREATING_OR_UPDATING, InferenceComponentStatus.DELETING),
        is_lasting=True,
        transitions={
            InferenceComponentStatus.CREATING: _RUNNING,
            InferenceComponentStatus.UPDATING: _RUNNING,
            InferenceComponentStatus.IN_SERVICE: _RUNNING,
            InferenceComponentStatus.FAILED: (InferenceComponentStatus.DELETING,),
            InferenceComponentStatus.DELETING: (InferenceComponentStatus.FAILED,),
        },
    ),
    logs=LogNames("/aws/sagemaker/InferenceComponents/{name}", prefix=""),
    verbs=("Describe", "List", "Delete"),
    summaries="InferenceComponents",
    newest_first=True,
    event_words=None,
)
