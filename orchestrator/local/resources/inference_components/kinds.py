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


SERVING_STATUSES = (InferenceComponentStatus.IN_SERVICE, InferenceComponentStatus.UPDATING)
_CREATING_OR_UPDATING = (InferenceComponentStatus.CREATING, InferenceComponentStatus.UPDATING)
_ALL_STATUSES = tuple(InferenceComponentStatus)

INFERENCE_COMPONENT = Kind(
    arn_type="inference-component",
    noun="InferenceComponent",
    title="inference component",
    lifecycle=Lifecycle(
        statuses=tuple(InferenceComponentStatus),
        first_status=InferenceComponentStatus.CREATING,
        success_status=InferenceComponentStatus.IN_SERVICE,
        transitional_statuses=(*_CREATING_OR_UPDATING, InferenceComponentStatus.DELETING),
        runs_until_deleted=True,
        transitions={
            InferenceComponentStatus.CREATING: _ALL_STATUSES,
            InferenceComponentStatus.UPDATING: _ALL_STATUSES,
            InferenceComponentStatus.IN_SERVICE: _ALL_STATUSES,
            InferenceComponentStatus.FAILED: (InferenceComponentStatus.DELETING,),
            InferenceComponentStatus.DELETING: (InferenceComponentStatus.FAILED,),
        },
    ),
    logs=LogNames("/aws/sagemaker/InferenceComponents/{name}", prefix=""),
    verbs=("Describe", "List", "Delete"),
    summaries="InferenceComponents",
    newest_first=True,
    event_name=None,
)
