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
from microjobs_orchestrator.local.resources.descriptions import copy_members, describe_caller
from microjobs_orchestrator.local.resources.listing import describe_as
from microjobs_orchestrator.local.resources.mlflow import process, tracking_server
from microjobs_orchestrator.local.resources.mlflow.kinds import (
    ACTIVE,
    FAILED,
    MLFLOW_APP,
    MLFLOW_TRACKING_SERVER,
    ServerStatus,
)
from microjobs_orchestrator.local.resources.mlflow.registration import read_setting
from microjobs_orchestrator.local.resources.mlflow.tracking_server import REASON, TrackingServer, describe_absence
from microjobs_orchestrator.local.resources.operations import (
    Answer,
    Handler,
    Request,
    RunningOperations,
    add_resource,
)
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.state import Query, Record

LINK_SECONDS = 300
SESSION_SECONDS = 43200
"""AWS's defaults for ExpiresInSeconds and SessionExpirationDurationInSeconds."""
DEFAULT, NO_DEFAULT = "ENABLED", "DISABLED"
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
        defaults, internal = {**self.defaults, **version}, read_setting(request)
        return add_resource(self.context, self.kind, request, defaults=defaults, members=members, internal=internal)

    def check(self, request: Request) -> None:
        """Raise ServiceError for an artifact store that does not exist, or another owner of its bucket."""
        if "ArtifactStoreUri" in request:
            bucket, _ = parse_uri(request["ArtifactStoreUri"])
            self.context.store.check_bucket(bucket)
        owner = request.get("S3BucketOwnerAccountId", ACCOUNT)
        if request.get("S3BucketOwnerVerification", False) and owner != ACCOUNT:
            raise ValidationError(f"The bucket belongs to account {ACCOUNT}, not to {owner}.")

    def make_runnable(self, record: Record) -> Runnable:
        return TrackingServer(self.context, self.kind, record.name)

    def find(self, request: Request) -> Record:
        identifier = request[self.kind.identifier_member]
        by_arn = self.kind.is_identified_by_arn
        arn = identifier if by_arn else format_arn(f"{self.kind.arn_type}/{identifier}", self.context.settings.region)
        record = self.context.state.get_by_arn(arn)
        if record is None or record.kind != self.kind.arn_type:
            raise ServiceError("ResourceNotFound", f'Could not find {self.kind.words} "{arn}".')
        return record

    # --- lists ---

    def list(self, request: Request) -> Answer:
        begin, end = request.get("CreatedAfter", float("-inf")), request.get("CreatedBefore", float("inf"))
        selected = [record for record in self.select(request) if begin <= record.created <= end]
        key = {"Name": _get_name, "Status": _get_status}.get(request.get("SortBy", "CreationTime"), _get_creation)
        selected.sort(key=key, reverse=request.get("SortOrder", "Descending") == "Descending")
        page, token = cut_page(selected, request)
        return {self.kind.summaries_member: [self.summarize(record) for record in page], **token}

    def select(self, request: Request) -> Iterable[Record]:
        """Return the resources that a List request selects, in any order."""
        wanted = {
            self.kind.status_member: request.get(self.kind.status_filter),
            **{name: request.get(name) for name in ("MlflowVersion", "AccountDefaultStatus")},
        }
        filters = {member: value for member, value in wanted.items() if value is not None}
        records = self.context.state.find(Query(self.kind.arn_type, limit=-1))
        return [r for r in records if all(r.description.get(member) == value for member, value in filters.items())]

    def summarize(self, record: Record) -> Mapping[str, Any]:
        noun = f"{self.kind.noun}Summary" if self.kind.is_identified_by_arn else "TrackingServerSummary"
        return describe_as(noun, record)

    # --- changes ---

    def answer(self, record: Record) -> Answer:
        return {self.kind.arn_member: record.arn}

    def change_status(
        self,
        record: Record,
        status: str,
        allowed: Iterable[str],
        members: Mapping[str, Any] | None = None,
        internal: Mapping[str, Any] | None = None,
    ) -> None:
        """Change the status of a server.

        Raises:
            ServiceError: the present status does not allow the change.
        """
        changes = {self.kind.status_member: status, **(members or {})}
        update = self.context.state.update
        if update(record.kind, record.name, changes, status, internal=internal, only_if=tuple(allowed)) is None:
            message = f"The {self.kind.words} {record.name} is in status {self.find_status(record)}, which does not"
            raise ServiceError("ConflictException", f"{message} allow this request.")

    def find_status(self, record: Record) -> str:
        current = self.context.state.get(self.kind.arn_type, record.name)
        return current.status if current else "Deleted"

    def update(self, request: Request) -> Answer:
        record = self.find(request)
        self.check(request)
        changes = copy_members(f"Describe{self.kind.noun}", request, without=(self.kind.identifier_member,))
        members = {**changes, "LastModifiedBy": describe_caller(), REASON: None}
        self.change_status(record, ServerStatus.UPDATING, (*ACTIVE, *FAILED), members, read_setting(request))
        self.wake_or_start(record)
        return self.answer(record)

    def wake_or_start(self, record: Record) -> None:
        """Let the thread of a server read the changed record, or start a thread for a server that has failed."""
        plan_name = f"{self.kind.arn_type}/{record.name}"
        running = self.registry.find(plan_name)
        if isinstance(running, TrackingServer) and not running.has_failed:
            running.events.send(Change.RESOURCE_CHANGED)
        else:
            self.registry.wait_for_end(plan_name)
            self.registry.start(self.make_runnable(record))

    def delete(self, request: Request) -> Answer:
        """Delete a server in any status. Its thread deletes the data when the process has ended."""
        record = self.find(request)
        arn_type, name, status = self.kind.arn_type, record.name, ServerStatus.DELETING
        self.context.state.update(arn_type, name, {self.kind.status_member: str(status)}, str(status))
        if not self.registry.stop(f"{arn_type}/{name}"):
            tracking_server.delete(self.context, self.kind, name)
        return self.answer(record)

    def create_address(self, request: Request) -> Answer:
        """Return an address that opens MLflow in a browser once."""
        record = self.find(request)
        if record.status not in ACTIVE:
            raise ServiceError("ConflictException", describe_absence(record))
        link_seconds = request.get("ExpiresInSeconds", LINK_SECONDS)
        session_seconds = request.get("SessionExpirationDurationInSeconds", SESSION_SECONDS)
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
        return "Inactive" if self.context.mlflow_connections.find(record.arn) is None else "Active"

    def further_handlers(self) -> Mapping[str, Handler]:
        return {
            "UpdateMlflowTrackingServer": self.update,
            "StartMlflowTrackingServer": self.start,
            "CreatePresignedMlflowTrackingServerUrl": self.create_address,
        }

    def start(self, request: Request) -> Answer:
        record = self.find(request)
        allowed = (ServerStatus.STOPPED, *FAILED)
        self.change_status(record, ServerStatus.STARTING, allowed, {REASON: None})
        self.registry.wait_for_end(f"{self.kind.arn_type}/{record.name}")
        self.registry.start(self.make_runnable(record))
        return self.answer(record)

    def stop(self, request: Request) -> Answer:
        record = self.find(request)
        allowed = (ServerStatus.CREATING, ServerStatus.UPDATING, ServerStatus.STARTING, *ACTIVE)
        self.change_status(record, ServerStatus.STOPPING, allowed)
        if not self.registry.stop(f"{self.kind.arn_type}/{record.name}"):  # its thread has just ended
            self.change_status(record, ServerStatus.STOPPED, (ServerStatus.STOPPING,))
        return self.answer(record)


class AppOperations(_MlflowOperations):
    kind = MLFLOW_APP
    defaults: ClassVar = {"ModelRegistrationMode": "AutoModelRegistrationDisabled", "AccountDefaultStatus": NO_DEFAULT}

    def add(self, request: Request) -> Record:
        with self.context.state.transaction():
            record = super().add(request)
            self._replace_default(record, request)
            return record

    def update(self, request: Request) -> Answer:
        with self.context.state.transaction():
            self._replace_default(self.find(request), request)
            return super().update(request)

    def _replace_default(self, record: Record, request: Request) -> None:
        """Make an app the default of the account: an account has one default."""
        if request.get("AccountDefaultStatus") == DEFAULT:
            for other in self.select({"AccountDefaultStatus": DEFAULT}):
                if other.name != record.name:
                    self.context.state.update(other.kind, other.name, {"AccountDefaultStatus": NO_DEFAULT})

    def further_handlers(self) -> Mapping[str, Handler]:
        return {"UpdateMlflowApp": self.update, "CreatePresignedMlflowAppUrl": self.create_address}


def _get_name(record: Record) -> tuple[Any, ...]:
    return (record.name,)


def _get_status(record: Record) -> tuple[Any, ...]:
    return (record.status, record.name)


def _get_creation(record: Record) -> tuple[Any, ...]:
    return (record.created, record.name)
