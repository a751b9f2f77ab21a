"""Parity rows of Search and GetSearchSuggestions."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity.common import ONE_ACCOUNT, make_honoured_rows
from microjobs_orchestrator.local.parity.rows import Honoured, Members, Rows
from microjobs_orchestrator.local.resources.search.searchable_kinds import SEARCHABLE_KINDS

FILTER: Rows = {
    "Name": Honoured(
        "a property; dots join the names of nested members, as in `ModelArtifacts.S3ModelArtifacts`. Or `Tags.key`, "
        "`HyperParameters.name`, `Metrics.name`"
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
    values=tuple(SEARCHABLE_KINDS),
    reason="Search does not find resources of other kinds on this server: use their List operations",
)

SEARCH: Rows = {
    "Resource": RESOURCE,
    "SearchExpression": Members(EXPRESSION),
    "SortBy": Honoured("a property, as in filters; resources without the property come last"),
    **make_honoured_rows("SortOrder", "NextToken", "MaxResults"),
    "CrossAccountFilterOption": Honoured(values=("SameAccount",), reason=ONE_ACCOUNT.reason),
    "VisibilityConditions": Members({"Key": Honoured("`Tags.key`"), "Value": Honoured()}),
}

SUGGESTIONS: Rows = {
    "Resource": RESOURCE,
    "SuggestionQuery": Members(
        {
            "PropertyNameQuery": Members(
                {"PropertyNameHint": Honoured("the beginning of a name such as `Tags.team`; case-sensitive")}
            )
        }
    ),
}

ROWS: Mapping[str, Rows] = {"Search": SEARCH, "GetSearchSuggestions": SUGGESTIONS}
