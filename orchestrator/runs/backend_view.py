"""A view that sends requests to a backend, such as AWS."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from microjobs_orchestrator.runs.backend import Backend
from microjobs_orchestrator.runs.kinds import Kind, Members
from microjobs_orchestrator.runs.logs import ClientTail, Tail
from microjobs_orchestrator.runs.view import Filter, ResourceRow, View

MAX_PAGE_ROWS = 100
"""The maximum of MaxResults in List operations."""


class BackendView(View):
    """A view of a backend.

    Args:
        source: the name of the backend in messages, such as `AWS, region eu-west-1`.
    """

    def __init__(self, backend: Backend, source: str) -> None:
        self._backend = backend
        self.source = source
        self.poll_interval = backend.poll_interval

    def list_newest(self, row_filter: Filter) -> list[ResourceRow]:
        queries = (
            (kind, status)
            for kind in row_filter.list_matching_kinds()
            # Two sorts of kinds are left out: parts of another resource, such as pipeline executions, because their
            # List request must name that resource; and kinds whose List operation cannot filter by name.
            if kind.parent is None and kind.filters_names
            for status in row_filter.list_statuses(kind) or ("",)
        )
        return row_filter.select_newest(
            row
            for kind, status in queries
            for row in islice(filter(row_filter.matches, self._list_rows(kind, status, row_filter)), row_filter.limit)
        )

    def _list_rows(self, kind: Kind, status: str, row_filter: Filter) -> Iterator[ResourceRow]:
        """Yield rows, newest first, page by page. AWS filters the rows of each page, so a page can be short."""
        filters = {"StatusEquals": status, "NameContains": row_filter.name}
        request: dict[str, Any] = {
            "SortBy": "CreationTime",
            "SortOrder": "Descending",
            "MaxResults": min(row_filter.limit, MAX_PAGE_ROWS),
        }
        request |= {name: value for name, value in filters.items() if value}
        for row in kind.list_summaries(self._backend.sagemaker, **request):
            creation_time, end_time = row["CreationTime"], row.get(kind.lifecycle.end_member)
            secondary_status = row.get("SecondaryStatus", "")
            yield ResourceRow(
                kind, row[kind.name_member], row[kind.status_member], creation_time, end_time, secondary_status
            )

    def describe(self, kind: Kind, name: str) -> Members | None:
        # `find` calls this method for every kind. `list_newest` never lists kinds that cannot be filtered by name, so
        # the user may have no permission for them, and AWS's error would end the search.
        if not kind.filters_names:
            return None
        return kind.describe(self._backend.sagemaker, name)

    def open_tail(self, kind: Kind, name: str) -> Tail:
        return ClientTail(kind, name, self._backend.logs)
