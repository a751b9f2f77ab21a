"""The operations on pipelines and their versions.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreatePipeline.html
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.resources.listing import describe_resource, list_resources
from microjobs_orchestrator.local.resources.operations import Handler, Operations, Request, Response, add_resource
from microjobs_orchestrator.local.resources.pipelines import versions
from microjobs_orchestrator.local.resources.pipelines.definition.checks import read_definition
from microjobs_orchestrator.local.resources.pipelines.definition.parse import MAX_CHARACTERS
from microjobs_orchestrator.local.resources.pipelines.executions import PipelineExecutionOperations, delete_executions
from microjobs_orchestrator.local.resources.pipelines.kinds import PIPELINE, PIPELINE_EXECUTION
from microjobs_orchestrator.local.resources.pipelines.requests import (
    convert_list_request,
    find_pipeline,
    make_missing_pipeline_error,
    pipelines_lock,
    read_parallelism,
)
from microjobs_orchestrator.local.state import Owner, Query, Record

DEFINITION_MEMBERS = ("PipelineDefinition", "PipelineDefinitionS3Location")
CHANGEABLE_MEMBERS = ("PipelineDisplayName", "PipelineDescription", "RoleArn")
FIXED_MEMBERS = ("PipelineName", "ClientRequestToken", "Tags")
MAX_STORED_DELETIONS = 1000
"""Maximum number of deletions whose ClientRequestToken the server stores."""

__all__ = ["PipelineExecutionOperations", "PipelineOperations"]


class PipelineOperations(Operations):
    kind = PIPELINE

    def __init__(self, context: Context, registry: Registry) -> None:
        super().__init__(context, registry)
        self._deletions: dict[str, tuple[str, str]] = {}
        """Names and ARNs of deleted pipelines, by ClientRequestToken."""

    def list_additional_handlers(self) -> Mapping[str, Handler]:
        return {
            "UpdatePipeline": self.update,
            "ListPipelineVersions": self.list_versions,
            "UpdatePipelineVersion": self.update_version,
        }

    # --- Create ---

    def add(self, request: Request) -> Record:
        digest = _digest_request(request)
        name, aliases = request["PipelineName"], request.get("PipelineVersionAliases", [])
        with pipelines_lock:
            existing_pipeline = self.context.state.get(PIPELINE.arn_type, name)
            if existing_pipeline is not None:
                return _accept_repetition(existing_pipeline, request, digest)
            text = self._read_definition(request)
            versions.check_aliases(aliases, other_aliases={})
            # If a server was killed during the deletion of a pipeline of this name, its versions may remain.
            versions.delete_versions(self.context.state, name)
            arn = format_arn(f"{PIPELINE.arn_type}/{name}", self.context.settings.region)
            # The version is stored first, because a pipeline without a version could not be described.
            versions.add_version(self.context.state, name, arn, 1, text, aliases)
            return self._add_pipeline(request, digest)

    def _add_pipeline(self, request: Request, digest: str) -> Record:
        fixed_members = {member: request[member] for member in FIXED_MEMBERS if member in request}
        return add_resource(
            self.context,
            PIPELINE,
            {**fixed_members, **_read_changes(request)},
            defaults={"PipelineDisplayName": request["PipelineName"]},
            members={PIPELINE.status_member: "Active", "CreatedBy": {}, "LastModifiedBy": {}},
            internal={"RequestDigest": digest},
        )

    def _read_definition(self, request: Request) -> str:
        """Return the checked text of a definition. Raise ValidationError if it is not valid."""
        sources = [member for member in DEFINITION_MEMBERS if member in request]
        if len(sources) != 1:
            raise ValidationError(f"Specify one of {' and '.join(DEFINITION_MEMBERS)}; the request has {len(sources)}.")
        text = request.get("PipelineDefinition") or self._read_object(request["PipelineDefinitionS3Location"])
        read_definition(text)
        return str(text)

    def _read_object(self, location: Mapping[str, str]) -> str:
        bucket, key = location["Bucket"], location["ObjectKey"]
        try:
            with self.context.store.open(bucket, key).file as file:
                content = file.read(4 * MAX_CHARACTERS + 1)  # in UTF-8, a character has at most four bytes
            return content.decode()
        except ServiceError as error:
            raise ValidationError(f"Could not read the definition s3://{bucket}/{key}: {error.message}") from error
        except UnicodeDecodeError as error:
            raise ValidationError(f"The definition s3://{bucket}/{key} is not text in UTF-8: {error}") from error

    # --- Update ---

    def update(self, request: Request) -> Response:
        with pipelines_lock:
            record = self.find(request)
            number = self._add_version_if_changed(record, request)
            if self.context.state.update(PIPELINE.arn_type, record.name, _read_changes(request)) is None:
                raise make_missing_pipeline_error(record.arn)
        return {"PipelineArn": record.arn, "PipelineVersionId": number}

    def _add_version_if_changed(self, record: Record, request: Request) -> int:
        """Add a version if the definition changes. Return the number of the latest version."""
        state, aliases = self.context.state, request.get("PipelineVersionAliases", [])
        latest = versions.find_version(state, record.name, request={})
        has_definition = any(member in request for member in DEFINITION_MEMBERS)
        text = self._read_definition(request) if has_definition else latest.description["PipelineDefinition"]
        if text == latest.description["PipelineDefinition"]:
            if aliases:
                raise ValidationError(
                    "PipelineVersionAliases needs a new version, but the definition does not change: use "
                    "UpdatePipelineVersion to add aliases to an existing version."
                )
            return latest.version
        versions.check_aliases(aliases, versions.list_other_aliases(state, record.name))
        versions.add_version(state, record.name, record.arn, latest.version + 1, text, aliases)
        return latest.version + 1

    def update_version(self, request: Request) -> Response:
        with pipelines_lock:
            record = self.find({"PipelineName": request["PipelineArn"]})
            version = versions.find_version(self.context.state, record.name, request)
            members = ("PipelineVersionDisplayName", "PipelineVersionDescription")
            changes: dict[str, Any] = {member: request[member] for member in members if member in request}
            if "PipelineVersionAliasOperations" in request:
                changes["PipelineVersionAliases"] = self._change_aliases(version, request)
            self.context.state.update(versions.VERSION.arn_type, record.name, changes, version=version.version)
        return {"PipelineArn": record.arn, "PipelineVersionId": version.version}

    def _change_aliases(self, version: Record, request: Request) -> list[str]:
        """Return all aliases that a version has after a request."""
        operations = request["PipelineVersionAliasOperations"]
        added_aliases, removed_aliases = operations.get("Add", []), operations.get("Remove", [])
        for alias in removed_aliases:
            if alias in added_aliases:
                raise ValidationError(f"The alias {alias!r} is in both Add and Remove.")
            if alias not in versions.get_aliases(version):
                raise ValidationError(f"Version {version.version} has no alias {alias!r} to remove.")
        kept_aliases = [alias for alias in versions.get_aliases(version) if alias not in removed_aliases]
        aliases = [*kept_aliases, *(alias for alias in added_aliases if alias not in kept_aliases)]
        other_aliases = versions.list_other_aliases(self.context.state, version.name, version.version)
        versions.check_aliases(aliases, other_aliases)
        return aliases

    # --- Describe, List, Delete ---

    def find(self, request: Request) -> Record:
        """Return the record of the pipeline whose name or ARN is the PipelineName of a request."""
        return find_pipeline(self.context, request["PipelineName"])

    def describe(self, request: Request) -> Response:
        record = self.find(request)
        version = versions.find_version(self.context.state, record.name, request)
        return describe_resource(PIPELINE, record, {**version.description, **self.compute_members(record)})

    def compute_members(self, record: Record) -> Mapping[str, Any]:
        """Return the time of the newest execution twice: Describe names it LastRunTime, and List LastExecutionTime."""
        query = Query(PIPELINE_EXECUTION.arn_type, owner=Owner(PIPELINE.arn_type, record.name), limit=1)
        times = [execution.created for execution in self.context.state.find(query)]
        return {"LastRunTime": times[0], "LastExecutionTime": times[0]} if times else {}

    def list(self, request: Request) -> Response:
        if request.get("ManagedBy") == "AWS":
            return {PIPELINE.summaries_member: []}
        prefix = request.get("PipelineNamePrefix", "")
        return list_resources(
            self.context.state, PIPELINE, convert_list_request(request), self.compute_members, name_prefix=prefix
        )

    def list_versions(self, request: Request) -> Response:
        owner = Owner(PIPELINE.arn_type, self.find(request).name)
        return list_resources(self.context.state, versions.VERSION, convert_list_request(request), owner=owner)

    def delete(self, request: Request) -> Response:
        name, token = request["PipelineName"], request.get("ClientRequestToken", "")
        with pipelines_lock:
            deleted_name, arn = self._deletions.get(token, ("", ""))
            if deleted_name == name and self.context.state.get(PIPELINE.arn_type, name) is None:
                return {"PipelineArn": arn}
            record = self.find(request)
            delete_executions(self.context, self.registry, record.name)
            super().delete(request)
            versions.delete_versions(self.context.state, name)
            self._remember_deletion(token, record)
        return {"PipelineArn": record.arn}

    def _remember_deletion(self, token: str, record: Record) -> None:
        self._deletions[token] = (record.name, record.arn)
        if len(self._deletions) > MAX_STORED_DELETIONS:
            del self._deletions[next(iter(self._deletions))]


def _read_changes(request: Request) -> dict[str, Any]:
    """Return the members of a Create or Update request that belong to the pipeline, not to a version."""
    return {
        **{member: request[member] for member in CHANGEABLE_MEMBERS if member in request},
        **read_parallelism(request),
    }


def _digest_request(request: Request) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def _accept_repetition(existing_pipeline: Record, request: Request, digest: str) -> Record:
    """Return the existing pipeline if an equal request created it. Otherwise, raise ValidationError."""
    if existing_pipeline.internal.get("RequestDigest") == digest:
        return existing_pipeline
    raise ValidationError(
        f"Pipeline names must be unique: a pipeline with the name {request['PipelineName']} already exists. Use "
        "UpdatePipeline to change it."
    )
