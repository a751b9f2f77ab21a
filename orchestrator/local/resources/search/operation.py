"""The operations Search and GetSearchSuggestions.

Each request reads all resources of one kind. Search keeps only the resources of the requested page in memory.
Sources: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Search.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_GetSearchSuggestions.html
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.listing import PAGE_SIZE
from microjobs_orchestrator.local.resources.operations import Handler, Operations, Request, Response
from microjobs_orchestrator.local.resources.search.expressions import (
    Predicate,
    compile_expression,
    compile_visibility,
)
from microjobs_orchestrator.local.resources.search.ordering import Order, SortKey, format_token, read_token
from microjobs_orchestrator.local.resources.search.properties import (
    LazyResource,
    ValueType,
    find_property,
    list_suggestions,
)
from microjobs_orchestrator.local.resources.search.searchable_kinds import SEARCHABLE_KINDS, SearchableKind
from microjobs_orchestrator.local.state import Query, Record, State

SCAN_SIZE = 100
"""Number of resources that are read in one transaction."""


class Resource(LazyResource):
    """A resource whose tags and computed members are read only if they are needed."""

    def __init__(self, operations: Operations, record: Record) -> None:
        self.record = record
        self._operations = operations
        self._times = {"CreationTime": record.created, "LastModifiedTime": record.modified}
        self._computed_members: Mapping[str, Any] | None = None

    def get(self, name: str, /) -> Any:
        if name == "Tags":
            return self._operations.context.state.tags(self.record.arn)
        for members in (self._times, self.record.description):
            if name in members:
                return members[name]
        return self._compute().get(name)

    def _compute(self) -> Mapping[str, Any]:
        if self._computed_members is None:
            self._computed_members = self._operations.compute_members(self.record)
        return self._computed_members

    def describe(self, searchable_kind: SearchableKind) -> dict[str, object]:
        """Return the resource in the form of a result."""
        members = {name: self.get(name) for name in searchable_kind.shape.members}
        return searchable_kind.wrap({name: value for name, value in members.items() if value is not None})


class SearchOperation:
    """Search and GetSearchSuggestions, for the kinds in SEARCHABLE_KINDS."""

    def __init__(self, state: State, all_operations: Sequence[Operations]) -> None:
        self._state = state
        self._operations = {operations.kind.noun: operations for operations in all_operations}

    def list_handlers(self) -> Mapping[str, Handler]:
        return {"Search": self.search, "GetSearchSuggestions": self.suggest}

    def suggest(self, request: Request) -> Response:
        """Return the properties for hyperparameters, tags and metrics whose names, such as `Tags.team`, begin with the
        hint."""
        searchable_kind = SEARCHABLE_KINDS[request["Resource"]]  # the parity rows refuse other resources
        hint = request.get("SuggestionQuery", {}).get("PropertyNameQuery", {}).get("PropertyNameHint", "")
        names = {
            name
            for resource in self._scan(searchable_kind)
            for name in list_suggestions(searchable_kind.shape, resource)
            if name.startswith(hint)
        }
        return {"PropertyNameSuggestions": [{"PropertyName": name} for name in sorted(names)]}

    def search(self, request: Request) -> Response:
        searchable_kind = SEARCHABLE_KINDS[request["Resource"]]  # the parity rows refuse other resources
        matches = _compile_request(searchable_kind, request)
        order = _make_order(searchable_kind, request)
        position = read_token(request["NextToken"]) if request.get("NextToken") else None
        limit, total = request.get("MaxResults", PAGE_SIZE), 0

        def find_candidates() -> Iterator[tuple[SortKey, Resource]]:
            nonlocal total
            for resource in self._scan(searchable_kind):
                if matches(resource):
                    total += 1
                    key = order.make_key(resource.record, resource)
                    if order.is_after(key, position):
                        yield key, resource

        resources = order.take_first(find_candidates(), limit + 1)
        results = [resource.describe(searchable_kind) for _, resource in resources[:limit]]
        response = {"Results": results, "TotalHits": {"Value": total, "Relation": "EqualTo"}}
        return response | ({"NextToken": format_token(resources[limit - 1][0])} if len(resources) > limit else {})

    def _scan(self, searchable_kind: SearchableKind) -> Iterator[Resource]:
        """Yield all resources of a kind, sorted by name, because names do not change during the scan."""
        operations, after = self._operations[searchable_kind.kind.noun], None
        while True:
            query = Query(
                searchable_kind.kind.arn_type, order_by="name", descending=False, limit=SCAN_SIZE, after=after
            )
            records = self._state.find(query)
            yield from (Resource(operations, record) for record in records)
            if not records:
                return
            after = (records[-1].name, records[-1].name, records[-1].version)


def _compile_request(searchable_kind: SearchableKind, request: Request) -> Predicate:
    predicates = []
    if "SearchExpression" in request:
        predicates.append(compile_expression(searchable_kind, request["SearchExpression"]))
    if "VisibilityConditions" in request:
        predicates.append(compile_visibility(searchable_kind, request["VisibilityConditions"]))
    return lambda resource: all(predicate(resource) for predicate in predicates)


def _make_order(searchable_kind: SearchableKind, request: Request) -> Order:
    sort_property = find_property(
        searchable_kind.shape, searchable_kind.strip_inner_member(request.get("SortBy", "LastModifiedTime"))
    )
    if sort_property.type is ValueType.STRUCTURE:
        raise ValidationError(f"SortBy {request['SortBy']!r} is a structure: sort by one of its members.")
    return Order(sort_property, descending=request.get("SortOrder", "Descending") == "Descending")
