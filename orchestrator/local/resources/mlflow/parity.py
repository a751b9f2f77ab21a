"""Parity rows of MLflow tracking servers and apps."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity.common import KMS, PAGE_MEMBERS, ROLE, TAGS, make_honoured_rows
from microjobs_orchestrator.local.parity.rows import Honoured, NoEffect, Refused, Rows
from microjobs_orchestrator.local.resources.mlflow.process import find_version

VERSION = Honoured(
    "the installed version", values=(find_version(),), reason="only this version is installed; leave the member out"
)
WINDOW = NoEffect("MLflow is updated only together with this server")
REGISTRATION = Honoured("each version of a model that a client creates becomes a model package, with its SourceUri")
DOMAINS = Refused("there are no domains")
STORE = Honoured("a prefix in an existing bucket; a change applies to new experiments only")
PRESIGNED_URL_ROWS = {
    "ExpiresInSeconds": Honoured("by default 300; the address opens one session"),
    "SessionExpirationDurationInSeconds": Honoured("by default 43200"),
}
SERVER: Rows = {
    "TrackingServerName": Honoured(),
    "ArtifactStoreUri": STORE,
    "TrackingServerSize": Honoured("the number of processes that answer requests: 1, 2 or 4"),
    "AutomaticModelRegistration": REGISTRATION,
    "WeeklyMaintenanceWindowStart": WINDOW,
    **make_honoured_rows("S3BucketOwnerAccountId", "S3BucketOwnerVerification"),
}
APP: Rows = {
    "ArtifactStoreUri": STORE,
    "ModelRegistrationMode": REGISTRATION,
    "WeeklyMaintenanceWindowStart": WINDOW,
    "AccountDefaultStatus": Honoured("at most one app is the default; no operation of the server uses the default"),
    "DefaultDomainIdList": DOMAINS,
}
LIST_ROWS = make_honoured_rows(*PAGE_MEMBERS, "CreatedAfter", "CreatedBefore", "MlflowVersion")

ROWS: Mapping[str, Rows] = {
    "CreateMlflowTrackingServer": {**SERVER, "MlflowVersion": VERSION, "RoleArn": ROLE, "Tags": TAGS},
    "UpdateMlflowTrackingServer": SERVER,
    "ListMlflowTrackingServers": {**LIST_ROWS, "TrackingServerStatus": Honoured()},
    "StartMlflowTrackingServer": make_honoured_rows("TrackingServerName"),
    "CreatePresignedMlflowTrackingServerUrl": {"TrackingServerName": Honoured(), **PRESIGNED_URL_ROWS},
    "CreateMlflowApp": {**APP, "Name": Honoured(), "RoleArn": ROLE, "KmsKeyId": KMS, "Tags": TAGS},
    "UpdateMlflowApp": {**APP, "Arn": Honoured(), "Name": Refused("the name is a part of the ARN: create another app")},
    "ListMlflowApps": {
        **LIST_ROWS,
        "Status": Honoured(),
        "AccountDefaultStatus": Honoured(),
        "DefaultForDomainId": DOMAINS,
    },
    "CreatePresignedMlflowAppUrl": {"Arn": Honoured(), **PRESIGNED_URL_ROWS},
}
