"""The kinds of endpoints and of their configurations."""

from enum import StrEnum

from microjobs_orchestrator.local.kinds import AwsMembers, Kind, Lifecycle, LogNames


class EndpointStatus(StrEnum):
    """AWS's statuses of endpoints."""

    OUT_OF_SERVICE = "OutOfService"
    CREATING = "Creating"
    UPDATING = "Updating"
    SYSTEM_UPDATING = "SystemUpdating"
    ROLLING_BACK = "RollingBack"
    IN_SERVICE = "InService"
    DELETING = "Deleting"
    FAILED = "Failed"
    UPDATE_ROLLBACK_FAILED = "UpdateRollbackFailed"


SERVING_STATUSES = (EndpointStatus.IN_SERVICE, EndpointStatus.UPDATING, EndpointStatus.ROLLING_BACK)
_CHANGING_STATUSES = (EndpointStatus.CREATING, EndpointStatus.UPDATING, EndpointStatus.ROLLING_BACK)
_USED_STATUSES = (*_CHANGING_STATUSES, EndpointStatus.IN_SERVICE, EndpointStatus.FAILED, EndpointStatus.DELETING)
"""The statuses that the local server sets."""

ENDPOINT_CONFIG = Kind(
    arn_type="endpoint-config",
    noun="EndpointConfig",
    title="endpoint configuration",
    verbs=("Describe", "List", "Delete"),
    summaries="EndpointConfigs",
    aws_name="endpoint configuration",
    newest_first=True,
    # No `network`: the models of the configuration have the VpcConfig.
    aws=AwsMembers(instances="ProductionVariants", volume_kms_key="KmsKeyId", quota="endpoint"),
)
ENDPOINT = Kind(
    arn_type="endpoint",
    noun="Endpoint",
    title="endpoint",
    lifecycle=Lifecycle(
        statuses=tuple(EndpointStatus),
        first_status=EndpointStatus.CREATING,
        success_status=EndpointStatus.IN_SERVICE,
        transitional_statuses=(
            *_CHANGING_STATUSES,
            EndpointStatus.SYSTEM_UPDATING,
            EndpointStatus.DELETING,
        ),
        runs_until_deleted=True,
        transitions={
            EndpointStatus.CREATING: _USED_STATUSES,
            EndpointStatus.UPDATING: _USED_STATUSES,
            EndpointStatus.ROLLING_BACK: _USED_STATUSES,
            EndpointStatus.IN_SERVICE: _USED_STATUSES,  # after a restart, the server starts the hosts again
            EndpointStatus.FAILED: (EndpointStatus.DELETING,),
            EndpointStatus.DELETING: (EndpointStatus.FAILED,),
        },
    ),
    logs=LogNames("/aws/sagemaker/Endpoints/{name}", prefix=""),
    verbs=("Describe", "List", "Delete"),
    summaries="Endpoints",
    newest_first=True,
)
