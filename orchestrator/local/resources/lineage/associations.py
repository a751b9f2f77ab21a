"""The operations on associations: directed relations between two resources, such as an artifact and a trial component.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_AddAssociation.html
"""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.pages import cut_page
from microjobs_orchestrator.local.resources.operations import Handler, Request, Response
from microjobs_orchestrator.local.state import NameTakenError, Query, Record

ASSOCIATION = "lineage-association"
FILTERS = ("SourceArn", "DestinationArn", "SourceType", "DestinationType", "AssociationType")


class Associations:
    """The operations. They may be called from any thread."""

    def __init__(self, context: Context) -> None:
        self._state = context.state

    def list_handlers(self) -> Mapping[str, Handler]:
        return {
            "AddAssociation": self.add,
            "DeleteAssociation": self.delete,
            "ListAssociations": self.list,
        }

    def add(self, request: Request) -> Response:
        description: dict[str, Any] = {"AssociationType": request.get("AssociationType", "AssociatedWith")}
        arns = {side: request[f"{side}Arn"] for side in ("Source", "Destination")}
        for side, record in {side: self._find(arn) for side, arn in arns.items()}.items():
            description[f"{side}Arn"] = record.arn
            description[f"{side}Type"] = _get_type(record)
            description[f"{side}Name"] = record.description.get("ArtifactName", record.name)
        try:
            self._state.add(ASSOCIATION, _make_name(request), "", "", request, description)
        except NameTakenError as error:  # SDKs search the message for "already exists"
            raise ValidationError(f"The association {_describe(request)} already exists.") from error
        return {name: request[name] for name in ("SourceArn", "DestinationArn")}

    def _find(self, arn: str) -> Record:
        if (record := self._state.get_by_arn(arn)) is None:
            raise ServiceError("ResourceNotFound", f"Resource {arn} does not exist.", 404)
        return record

    def delete(self, request: Request) -> Response:
        if not self._state.delete(ASSOCIATION, _make_name(request)):
            raise ServiceError("ResourceNotFound", f"The association {_describe(request)} does not exist.", 404)
        return {name: request[name] for name in ("SourceArn", "DestinationArn")}

    def list(self, request: Request) -> Response:
        begin, end = request.get("CreatedAfter", float("-inf")), request.get("CreatedBefore", float("inf"))
        filters = {name: request[name] for name in FILTERS if name in request}
        sort_member = request.get("SortBy", "CreationTime")
        is_descending = request.get("SortOrder", "Descending") == "Descending"
        associations = [
            {**record.description, "CreationTime": record.created}
            for record in self._state.find(Query(ASSOCIATION, created=(begin, end), limit=-1))
            if all(record.description[name] == value for name, value in filters.items())
        ]
        associations.sort(key=lambda item: item[sort_member], reverse=is_descending)
        page, token = cut_page(associations, request, default_limit=10)
        return {"AssociationSummaries": page, **token}


def _make_name(request: Request) -> str:
    return f"{request['SourceArn']} {request['DestinationArn']}"


def _describe(request: Request) -> str:
    return f"from {request['SourceArn']} to {request['DestinationArn']}"


def _get_type(record: Record) -> str:
    """Return ArtifactType of an artifact, SourceType of a job's trial component, or the kind of another resource."""
    source: Mapping[str, str] = record.description.get("Source", {})
    return str(record.description.get("ArtifactType") or source.get("SourceType") or record.kind)
