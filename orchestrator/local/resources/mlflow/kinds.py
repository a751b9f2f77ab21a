"""The kinds of MLflow tracking servers and apps."""

from collections.abc import Collection, Mapping
from enum import StrEnum

from microjobs_orchestrator.local.kinds import Kind, Lifecycle, LogNames


class ServerStatus(StrEnum):
    """AWS's statuses. Only apps have Deleted. They do not have those that begin with Start, Stop or Maintenance."""

    CREATING = "Creating"
    CREATED = "Created"
    CREATE_FAILED = "CreateFailed"
    UPDATING = "Updating"
    UPDATED = "Updated"
    UPDATE_FAILED = "UpdateFailed"
    DELETING = "Deleting"
    DELETE_FAILED = "DeleteFailed"
    DELETED = "Deleted"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    STOP_FAILED = "StopFailed"
    STARTING = "Starting"
    STARTED = "Started"
    START_FAILED = "StartFailed"
    MAINTENANCE_IN_PROGRESS = "MaintenanceInProgress"
    MAINTENANCE_COMPLETE = "MaintenanceComplete"
    MAINTENANCE_FAILED = "MaintenanceFailed"


S = ServerStatus
ACTIVE = (S.CREATED, S.UPDATED, S.STARTED)
"""The statuses in which a server serves."""
FAILED = (S.CREATE_FAILED, S.UPDATE_FAILED, S.START_FAILED)
ENDS = {S.CREATING: S.CREATED, S.UPDATING: S.UPDATED, S.STARTING: S.STARTED}
"""The status after a successful start, by the status before it."""
FAILURES = {S.CREATING: S.CREATE_FAILED, S.UPDATING: S.UPDATE_FAILED}
"""The status after a failed start, by the status before it."""

_ENDING = (S.STOPPING, S.DELETING)
_ANY_FAILURE = (S.UPDATE_FAILED, S.START_FAILED)
SERVER_TRANSITIONS: Mapping[str, Collection[str]] = {
    S.CREATING: (S.CREATED, S.CREATE_FAILED, *_ENDING),
    S.UPDATING: (S.UPDATED, S.UPDATE_FAILED, *_ENDING),
    S.STARTING: (S.STARTED, S.START_FAILED, *_ENDING),
    **dict.fromkeys(ACTIVE, (S.UPDATING, *_ENDING, *_ANY_FAILURE)),
    **dict.fromkeys(FAILED, (S.STARTING, S.UPDATING, S.DELETING)),
    S.STOPPING: (S.STOPPED, S.DELETING),
    S.STOPPED: (S.STARTING, S.DELETING),
}
APP_STATUSES = tuple(status for status in S if not status.startswith(("Start", "Stop", "Maintenance")))

MLFLOW_TRACKING_SERVER = Kind(
    "mlflow-tracking-server",
    "MlflowTrackingServer",
    "MLflow server",
    lifecycle=Lifecycle(
        statuses=tuple(status for status in S if status != S.DELETED),
        first=S.CREATING,
        success=S.CREATED,
        transitional=(S.CREATING, S.UPDATING, S.DELETING, S.STOPPING, S.STARTING),
        is_lasting=True,
        further_active=(S.UPDATED, S.STARTED),
        transitions=SERVER_TRANSITIONS,
    ),
    logs=LogNames("/aws/sagemaker/MlflowTrackingServers/{name}", prefix=""),
    member_noun="TrackingServer",
    summaries="TrackingServerSummaries",
    status_filter="TrackingServerStatus",
    filters_names=False,
    keeps_data=True,
    newest_first=True,
    event_words=None,
    ends_last=True,
)
MLFLOW_APP = Kind(
    "mlflow-app",
    "MlflowApp",
    "MLflow app",
    lifecycle=Lifecycle(
        statuses=APP_STATUSES,
        first=S.CREATING,
        success=S.CREATED,
        transitional=(S.CREATING, S.UPDATING, S.DELETING),
        is_lasting=True,
        further_active=(S.UPDATED,),
        transitions={
            status: tuple(after for after in following if after in APP_STATUSES)
            for status, following in SERVER_TRANSITIONS.items()
            if status in APP_STATUSES
        },
    ),
    logs=LogNames("/aws/sagemaker/MlflowApps/{name}", prefix=""),
    verbs=("Describe", "List", "Delete"),
    member_noun="",
    requires_arn=True,
    summaries="Summaries",
    status_filter="Status",
    filters_names=False,
    keeps_data=True,
    newest_first=True,
    event_words=None,
    ends_last=True,
)
