"""Parity rows of Search."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity.common import ONE_ACCOUNT, make_honoured_rows
from microjobs_orchestrator.local.parity.rows import Honoured, Members, Rows
from microjobs_orchestrator.local.resources.search.searchable import SEARCHABLE

FILTER: Rows = {
    "Name": Honoured(
        "a property, with dots between its members, or `Tags.key`, `HyperParameters.name`, `Metrics.name`"
    ),
    "Operator": Honoured("texts are case-sensitive; NotEquals also finds resources without the property"),
    "Value": Honoured("times are in UTC unless they have an offset"),
}

EXPRESSION: Rows = {
    "Filters": Members(FILTER),
    "NestedFilters": Members({**make_honoured_rows("NestedPropertyName"), "Filters": Members(FILTER)}),
    "SubExpressions": Honoured("expressions with the same members"),
    **make_honoured_rows("Operator"),
}

RESOURCE = Honoured(
    values=tuple(SEARCHABLE), reason="the server has no other resources that Search can find: use their List operation"
)

SEARCH: Rows = {
    "Resource": RESOURCE,
    "SearchExpression": Members(EXPRESSION),
    "SortBy": Honoured("a property, as in filters; resources without the property come last"),
    **make_honoured_rows("SortOrder", "NextToken", "MaxResults"),
    "CrossAccountFilterOption": Honoured(values=("SameAccount",), reason=ONE_ACCOUNT.reason),
    "VisibilityConditions": Members({"Key": Honoured("`Tags.key`"), "Value": Honoured()}),
}

ROWS: Mapping[str, Rows] = {"Search": SEARCH}
