"""The operations on MLflow tracking servers and apps.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateMlflowTrackingServer.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateMlflowApp.html
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.identity import ACCOUNT, MLFLOW_PATH, format_arn
from microjobs_orchestrator.local.lifecycle.events import Change
from microjobs_orchestrator.local.lifecycle.registry import Runnable
from microjobs_orchestrator.local.pages import cut_page
from microjobs_orchestrator.local.resources.descriptions import describe_caller, select_response_members
from microjobs_orchestrator.local.resources.listing import describe_as
from microjobs_orchestrator.local.resources.mlflow import process
from microjobs_orchestrator.local.resources.mlflow.kinds import (
    ACTIVE_STATUSES,
    FAILED_STATUSES,
    MLFLOW_APP,
    MLFLOW_TRACKING_SERVER,
    ServerStatus,
)
from microjobs_orchestrator.local.resources.mlflow.registration import read_registration_setting
from microjobs_orchestrator.local.resources.mlflow.server import (
    FAILURE_REASON,
    MlflowServer,
    delete_server,
    explain_missing_response,
)
from microjobs_orchestrator.local.resources.operations import (
    Handler,
    Request,
    Response,
    RunningOperations,
    add_resource,
)
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.state import Query, Record

DEFAULT_LINK_SECONDS = 300
DEFAULT_SESSION_SECONDS = 43200
"""AWS's defaults for ExpiresInSeconds and SessionExpirationDurationInSeconds."""
ACCOUNT_DEFAULT_ENABLED, ACCOUNT_DEFAULT_DISABLED = "ENABLED", "DISABLED"
"""Values of AccountDefaultStatus."""


class _MlflowOperations(RunningOperations):
    """The operations that tracking servers and apps have in common."""

    defaults: ClassVar[Mapping[str, Any]]
    """Members of the description that the Create request may replace."""

    def add(self, request: Request) -> Record:
        self.check(request)
        caller = describe_caller()
        members = {"CreatedBy": caller, "LastModifiedBy": caller}
        version = {"MlflowVersion": process.find_version()}
        defaults, internal = {**self.defaults, **version}, read_registration_setting(request)
        return add_resource(self.context, self.kind, request, defaults=defaults, members=members, internal=internal)

    def check(self, request: Request) -> None:
        """Raise ServiceError if the bucket of the artifact store does not exist.

        Raise ValidationError if S3BucketOwnerVerification is true, but S3BucketOwnerAccountId is not the account of
        this server.
        """
        if "ArtifactStoreUri" in request:
            bucket, _ = parse_uri(request["ArtifactStoreUri"])
            self.context.store.check_bucket(bucket)
        owner = request.get("S3BucketOwnerAccountId", ACCOUNT)
        if request.get("S3BucketOwnerVerification", False) and owner != ACCOUNT:
            raise ValidationError(f"The bucket belongs to account {ACCOUNT}, not to {owner}.")

    def make_runnable(self, record: Record) -> Runnable:
        return MlflowServer(self.context, self.kind, record.name)

    def find(self, request: Request) -> Record:
        identifier = request[self.kind.identifier_member]
        by_arn = self.kind.is_identified_by_arn
        arn = identifier if by_arn else format_arn(f"{self.kind.arn_type}/{identifier}", self.context.settings.region)
        record = self.context.state.get_by_arn(arn)
        if record is None or record.kind != self.kind.arn_type:
            raise ServiceError("ResourceNotFound", f'Could not find {self.kind.display_name} "{arn}".')
        return record

    # --- lists ---

    def list(self, request: Request) -> Response:
        begin, end = request.get("CreatedAfter", float("-inf")), request.get("CreatedBefore", float("inf"))
        selected_records = [record for record in self.select(request) if begin <= record.created <= end]
        key_functions = {"Name": _make_name_key, "Status": _make_status_key}
        make_key = key_functions.get(request.get("SortBy", "CreationTime"), _make_creation_time_key)
        selected_records.sort(key=make_key, reverse=request.get("SortOrder", "Descending") == "Descending")
        page, token = cut_page(selected_records, request)
        return {self.kind.summaries_member: [self.summarize(record) for record in page], **token}

    def select(self, request: Request) -> Iterable[Record]:
        """Return the resources that a List request selects, in any order."""
        members = {
            self.kind.status_member: request.get(self.kind.status_filter),
            **{name: request.get(name) for name in ("MlflowVersion", "AccountDefaultStatus")},
        }
        filters = {member: value for member, value in members.items() if value is not None}
        records = self.context.state.find(Query(self.kind.arn_type, limit=-1))
        return [
            record
            for record in records
            if all(record.description.get(member) == value for member, value in filters.items())
        ]

    def summarize(self, record: Record) -> Mapping[str, Any]:
        shape = f"{self.kind.noun}Summary" if self.kind.is_identified_by_arn else "TrackingServerSummary"
        return describe_as(shape, record)

    # --- changes ---

    def make_response(self, record: Record) -> Response:
        return {self.kind.arn_member: record.arn}

    def change_status(
        self,
        record: Record,
        status: str,
        allowed_statuses: Iterable[str],
        members: Mapping[str, Any] | None = None,
        internal: Mapping[str, Any] | None = None,
    ) -> None:
        """Change the status of a server.

        Raises:
            ServiceError: the current status does not allow the change.
        """
        changes = {self.kind.status_member: status, **(members or {})}
        update = self.context.state.update
        if (
            update(record.kind, record.name, changes, status, internal=internal, only_if=tuple(allowed_statuses))
            is None
        ):
            server, current_status = f"{self.kind.display_name} {record.name}", self.read_current_status(record)
            message = f"The {server} is in status {current_status}, which does not allow this request."
            raise ServiceError("ConflictException", message)

    def read_current_status(self, record: Record) -> str:
        """Return the stored status, which may have changed since the record was read."""
        current_record = self.context.state.get(self.kind.arn_type, record.name)
        return current_record.status if current_record else "Deleted"

    def update(self, request: Request) -> Response:
        record = self.find(request)
        self.check(request)
        changes = select_response_members(
            f"Describe{self.kind.noun}", request, excluded_members=(self.kind.identifier_member,)
        )
        members = {**changes, "LastModifiedBy": describe_caller(), FAILURE_REASON: None}
        self.change_status(
            record,
            ServerStatus.UPDATING,
            (*ACTIVE_STATUSES, *FAILED_STATUSES),
            members,
            read_registration_setting(request),
        )
        self.wake_or_start(record)
        return self.make_response(record)

    def wake_or_start(self, record: Record) -> None:
        """Let the thread of a server read the changed record, or start a thread for a server that has failed."""
        plan_name = f"{self.kind.arn_type}/{record.name}"
        runnable = self.registry.find(plan_name)
        if isinstance(runnable, MlflowServer) and not runnable.has_failed:
            runnable.events.send(Change.RESOURCE_CHANGED)
        else:
            self.registry.wait_for_end(plan_name)
            self.registry.start(self.make_runnable(record))

    def delete(self, request: Request) -> Response:
        """Delete a server in any status. If the server has a thread, the thread deletes the data after the end of the
        process. Otherwise, this method deletes the data."""
        record = self.find(request)
        arn_type, name, status = self.kind.arn_type, record.name, ServerStatus.DELETING
        self.context.state.update(arn_type, name, {self.kind.status_member: str(status)}, str(status))
        if not self.registry.stop(f"{arn_type}/{name}"):
            delete_server(self.context, self.kind, name)
        return self.make_response(record)

    def create_address(self, request: Request) -> Response:
        """Return an address that opens MLflow in a browser once."""
        record = self.find(request)
        if record.status not in ACTIVE_STATUSES:
            raise ServiceError("ConflictException", explain_missing_response(record))
        link_seconds = request.get("ExpiresInSeconds", DEFAULT_LINK_SECONDS)
        session_seconds = request.get("SessionExpirationDurationInSeconds", DEFAULT_SESSION_SECONDS)
        label, token = self.context.ui_sessions.offer(record.arn, link_seconds, session_seconds)
        port = urlsplit(self.context.settings.client_url).port
        return {"AuthorizedUrl": f"http://{label}.mlflow.localhost:{port}/auth?authToken={token}"}


class TrackingServerOperations(_MlflowOperations):
    kind = MLFLOW_TRACKING_SERVER
    defaults: ClassVar = {"TrackingServerSize": "Small", "AutomaticModelRegistration": False}

    def compute_members(self, record: Record) -> Mapping[str, Any]:
        url = f"{self.context.settings.client_url}{MLFLOW_PATH}/{record.kind}/{record.name}"
        return {"IsActive": self._describe_activity(record), "TrackingServerUrl": url}

    def summarize(self, record: Record) -> Mapping[str, Any]:
        return {**super().summarize(record), "IsActive": self._describe_activity(record)}

    def _describe_activity(self, record: Record) -> str:
        return "Inactive" if self.context.mlflow_connectors.find(record.arn) is None else "Active"

    def list_additional_handlers(self) -> Mapping[str, Handler]:
        return {
            "UpdateMlflowTrackingServer": self.update,
            "StartMlflowTrackingServer": self.start,
            "CreatePresignedMlflowTrackingServerUrl": self.create_address,
        }

    def start(self, request: Request) -> Response:
        record = self.find(request)
        allowed_statuses = (ServerStatus.STOPPED, *FAILED_STATUSES)
        self.change_status(record, ServerStatus.STARTING, allowed_statuses, {FAILURE_REASON: None})
        self.registry.wait_for_end(f"{self.kind.arn_type}/{record.name}")
        self.registry.start(self.make_runnable(record))
        return self.make_response(record)

    def stop(self, request: Request) -> Response:
        record = self.find(request)
        allowed_statuses = (ServerStatus.CREATING, ServerStatus.UPDATING, ServerStatus.STARTING, *ACTIVE_STATUSES)
        self.change_status(record, ServerStatus.STOPPING, allowed_statuses)
        # Usually, the server's thread sets the final status. If that thread has just ended, this method sets it.
        if not self.registry.stop(f"{self.kind.arn_type}/{record.name}"):
            self.change_status(record, ServerStatus.STOPPED, (ServerStatus.STOPPING,))
        return self.make_response(record)


class AppOperations(_MlflowOperations):
    kind = MLFLOW_APP
    defaults: ClassVar = {
        "ModelRegistrationMode": "AutoModelRegistrationDisabled",
        "AccountDefaultStatus": ACCOUNT_DEFAULT_DISABLED,
    }

    def add(self, request: Request) -> Record:
        with self.context.state.transaction():
            record = super().add(request)
            self._clear_other_default(record, request)
            return record

    def update(self, request: Request) -> Response:
        with self.context.state.transaction():
            self._clear_other_default(self.find(request), request)
            return super().update(request)

    def _clear_other_default(self, record: Record, request: Request) -> None:
        """If a request makes an app the default of the account, the current default loses this status."""
        if request.get("AccountDefaultStatus") == ACCOUNT_DEFAULT_ENABLED:
            for other_app in self.select({"AccountDefaultStatus": ACCOUNT_DEFAULT_ENABLED}):
                if other_app.name != record.name:
                    self.context.state.update(
                        other_app.kind, other_app.name, {"AccountDefaultStatus": ACCOUNT_DEFAULT_DISABLED}
                    )

    def list_additional_handlers(self) -> Mapping[str, Handler]:
        return {"UpdateMlflowApp": self.update, "CreatePresignedMlflowAppUrl": self.create_address}


def _make_name_key(record: Record) -> tuple[Any, ...]:
    return (record.name,)


def _make_status_key(record: Record) -> tuple[Any, ...]:
    return (record.status, record.name)


def _make_creation_time_key(record: Record) -> tuple[Any, ...]:
    return (record.created, record.name)
