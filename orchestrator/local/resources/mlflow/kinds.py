"""The kinds of MLflow tracking servers and apps."""

from collections.abc import Collection, Mapping
from enum import StrEnum

from microjobs_orchestrator.local.kinds import Kind, Lifecycle, LogNames


class ServerStatus(StrEnum):
    """AWS's statuses. Tracking servers do not have Deleted. Apps do not have the statuses whose names contain Start,
    Stop or Maintenance."""

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
ACTIVE_STATUSES = (S.CREATED, S.UPDATED, S.STARTED)
"""The statuses in which a server serves."""
FAILED_STATUSES = (S.CREATE_FAILED, S.UPDATE_FAILED, S.START_FAILED)
STATUS_AFTER_SUCCESS = {S.CREATING: S.CREATED, S.UPDATING: S.UPDATED, S.STARTING: S.STARTED}
"""The status after a successful start, by the status before it."""
RUNNING_STATUSES = (*STATUS_AFTER_SUCCESS, *ACTIVE_STATUSES)
"""The statuses in which the process of a server should run: it starts, or it serves."""
STATUS_AFTER_FAILURE = {S.CREATING: S.CREATE_FAILED, S.UPDATING: S.UPDATE_FAILED}
"""The status after a failed start, by the status before it. After other statuses, a tracking server becomes
START_FAILED, and an app UPDATE_FAILED."""

_SHUTDOWN_STATUSES = (S.STOPPING, S.DELETING)
_RUN_FAILURES = (S.UPDATE_FAILED, S.START_FAILED)
"""The statuses of a server whose process ended unexpectedly, or could not be started again: START_FAILED of a tracking
server, UPDATE_FAILED of an app."""
SERVER_TRANSITIONS: Mapping[str, Collection[str]] = {
    S.CREATING: (S.CREATED, S.CREATE_FAILED, *_SHUTDOWN_STATUSES),
    S.UPDATING: (S.UPDATED, S.UPDATE_FAILED, *_SHUTDOWN_STATUSES),
    S.STARTING: (S.STARTED, S.START_FAILED, *_SHUTDOWN_STATUSES),
    **dict.fromkeys(ACTIVE_STATUSES, (S.UPDATING, *_SHUTDOWN_STATUSES, *_RUN_FAILURES)),
    **dict.fromkeys(FAILED_STATUSES, (S.STARTING, S.UPDATING, S.DELETING)),
    S.STOPPING: (S.STOPPED, S.DELETING),
    S.STOPPED: (S.STARTING, S.DELETING),
}
APP_STATUSES = tuple(status for status in S if not status.startswith(("Start", "Stop", "Maintenance")))

MLFLOW_TRACKING_SERVER = Kind(
    arn_type="mlflow-tracking-server",
    noun="MlflowTrackingServer",
    title="MLflow server",
    lifecycle=Lifecycle(
        statuses=tuple(status for status in S if status != S.DELETED),
        first_status=S.CREATING,
        success_status=S.CREATED,
        transitional_statuses=(S.CREATING, S.UPDATING, S.DELETING, S.STOPPING, S.STARTING),
        runs_until_deleted=True,
        other_active_statuses=(S.UPDATED, S.STARTED),
        transitions=SERVER_TRANSITIONS,
    ),
    logs=LogNames("/aws/sagemaker/MlflowTrackingServers/{name}", prefix=""),
    member_noun="TrackingServer",
    summaries="TrackingServerSummaries",
    status_filter="TrackingServerStatus",
    filters_names=False,
    has_client_data=True,
    newest_first=True,
    event_name=None,
    is_ended_last=True,
)
MLFLOW_APP = Kind(
    arn_type="mlflow-app",
    noun="MlflowApp",
    title="MLflow app",
    lifecycle=Lifecycle(
        statuses=APP_STATUSES,
        first_status=S.CREATING,
        success_status=S.CREATED,
        transitional_statuses=(S.CREATING, S.UPDATING, S.DELETING),
        runs_until_deleted=True,
        other_active_statuses=(S.UPDATED,),
        transitions={
            status: tuple(next_status for next_status in next_statuses if next_status in APP_STATUSES)
            for status, next_statuses in SERVER_TRANSITIONS.items()
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
    has_client_data=True,
    newest_first=True,
    event_name=None,
    is_ended_last=True,
)
