"""The operations on artifacts. The source of an artifact determines its ARN.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateArtifact.html
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.pages import cut_page
from microjobs_orchestrator.local.resources.descriptions import select_response_members
from microjobs_orchestrator.local.resources.operations import Handler, Request, Response
from microjobs_orchestrator.local.state import NameTakenError, Query, Record

ARTIFACT = "artifact"
SUMMARY_MEMBERS = ("ArtifactName", "Source", "ArtifactType")


class Artifacts:
    """The operations. They may be called from any thread."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._state = context.state

    def list_handlers(self) -> Mapping[str, Handler]:
        return {
            "CreateArtifact": self.create,
            "DescribeArtifact": self.describe,
            "UpdateArtifact": self.update,
            "DeleteArtifact": self.delete,
            "ListArtifacts": self.list,
        }

    def create(self, request: Request) -> Response:
        name = _make_name(request["Source"])
        arn = format_arn(f"{ARTIFACT}/{name}", self._context.settings.region)
        description = select_response_members("DescribeArtifact", request)
        try:
            self._state.add(ARTIFACT, name, arn, "", request, description, tags=request.get("Tags", []))
        except NameTakenError as error:  # SDKs search the message for "already exists"
            raise ValidationError(f"Artifact {arn} with this source already exists.") from error
        return {"ArtifactArn": arn}

    def describe(self, request: Request) -> Response:
        record = self._find(request["ArtifactArn"])
        times = {"CreationTime": record.created, "LastModifiedTime": record.modified}
        return {**record.description, **times, "ArtifactArn": record.arn}

    def update(self, request: Request) -> Response:
        record = self._find(request["ArtifactArn"])
        removed_names = request.get("PropertiesToRemove", ())
        properties = {**record.description.get("Properties", {}), **request.get("Properties", {})}
        changes = {"Properties": {name: value for name, value in properties.items() if name not in removed_names}}
        if "ArtifactName" in request:
            changes["ArtifactName"] = request["ArtifactName"]
        self._state.update(ARTIFACT, record.name, changes)
        return {"ArtifactArn": record.arn}

    def delete(self, request: Request) -> Response:
        """Delete the artifact that the request names by its ARN or by its source."""
        if ("ArtifactArn" in request) == ("Source" in request):
            raise ValidationError("Provide exactly one of ArtifactArn and Source.")
        arn = request.get("ArtifactArn") or format_arn(
            f"{ARTIFACT}/{_make_name(request['Source'])}", self._context.settings.region
        )
        record = self._find(arn)
        self._state.delete(ARTIFACT, record.name)
        return {"ArtifactArn": record.arn}

    def list(self, request: Request) -> Response:
        begin, end = request.get("CreatedAfter", float("-inf")), request.get("CreatedBefore", float("inf"))
        is_descending = request.get("SortOrder", "Descending") == "Descending"
        records = self._state.find(Query(ARTIFACT, created=(begin, end), descending=is_descending, limit=-1))
        filters = {name: request[name] for name in ("SourceUri", "ArtifactType") if name in request}
        page, token = cut_page([record for record in records if _matches(record, filters)], request, default_limit=10)
        return {"ArtifactSummaries": [_summarize(record) for record in page], **token}

    def _find(self, arn: str) -> Record:
        record = self._state.get_by_arn(arn)
        if record is None or record.kind != ARTIFACT:
            raise ServiceError("ResourceNotFound", f"Artifact {arn} does not exist.", 404)
        return record


def _make_name(source: Mapping[str, Any]) -> str:
    types = [[item["SourceIdType"], item["Value"]] for item in source.get("SourceTypes", [])]
    content = json.dumps([source["SourceUri"], types])
    return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()[:32]


def _matches(record: Record, filters: Mapping[str, str]) -> bool:
    values = {**record.description["Source"], "ArtifactType": record.description["ArtifactType"]}
    return all(values[name] == value for name, value in filters.items())


def _summarize(record: Record) -> dict[str, Any]:
    members = {name: record.description[name] for name in SUMMARY_MEMBERS if name in record.description}
    times = {"CreationTime": record.created, "LastModifiedTime": record.modified}
    return {"ArtifactArn": record.arn, **members, **times}
