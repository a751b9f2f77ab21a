"""The operations that endpoints and inference components have in common: start an update, and delete."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.events import Change
from microjobs_orchestrator.local.resources.endpoints.deployer import NEXT_DEPLOYMENT, UPDATE_CONFIG
from microjobs_orchestrator.local.resources.endpoints.deployments import Deployment
from microjobs_orchestrator.local.resources.operations import Request, Response, RunningOperations
from microjobs_orchestrator.local.state import Record

DeploymentConfig = Mapping[str, Any] | None
"""The member DeploymentConfig of a request; None if it is missing."""


class DeploymentOperations(RunningOperations, ABC):
    """The operations on a kind whose resources have deployments."""

    def find_in_service(self, request: Request) -> Record:
        """Return the resource that a request updates. Raise ValidationError if it is not in service."""
        record = self.find(request)
        if record.status != "InService":
            resource = f'{self.kind.display_name} "{record.arn}"'
            raise ValidationError(f"Cannot update {resource}, which is {record.status}: it must be InService.")
        return record

    def start_update(
        self, record: Record, deployment: Deployment, config: DeploymentConfig = None, **changes: Any
    ) -> Response:
        """Let the thread of a resource replace its deployment.

        Raise ValidationError if the resource is no longer in service, because another request has just changed it.

        Args:
            config: the steps of the update; None if the update has one step.
            changes: members of the description that change now, and not at the end of the update.
        """
        arn_type, internal = self.kind.arn_type, {NEXT_DEPLOYMENT: deployment, UPDATE_CONFIG: config}
        members = {self.kind.status_member: "Updating", **changes}
        update = self.context.state.update
        if update(arn_type, record.name, members, "Updating", internal=internal, only_if=("InService",)) is None:
            raise ValidationError(
                f'Another request has just changed {self.kind.display_name} "{record.arn}": try again.'
            )
        if (runnable := self.registry.find(f"{arn_type}/{record.name}")) is not None:
            runnable.events.send(Change.RESOURCE_CHANGED)  # the thread of the resource reads the record again
        return {self.kind.arn_member: record.arn}

    def delete(self, request: Request) -> Response:
        """Delete a resource in any status. Its thread deletes the record after the replicas have ended."""
        record = self.find(request)
        self.check_deletion(record)
        arn_type, name = self.kind.arn_type, record.name
        self.context.state.update(arn_type, name, {self.kind.status_member: "Deleting"}, "Deleting")
        # A resource that failed before this server started has no thread that could delete the record.
        if not self.registry.stop(f"{arn_type}/{name}"):
            self.delete_record(name)
        return {}

    @abstractmethod
    def check_deletion(self, record: Record) -> None:
        """Raise ValidationError if other resources need the resource."""

    @abstractmethod
    def delete_record(self, name: str) -> None:
        """Delete the record of a resource that does not run."""
