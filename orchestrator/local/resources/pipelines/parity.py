"""Parity rows of pipelines."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity.common import LIST_PAGES, ROLE, TAGS, make_honoured_rows
from microjobs_orchestrator.local.parity.rows import Honoured, Members, Refused, Rows

LOCATION: Rows = {
    "Bucket": Honoured(),
    "ObjectKey": Honoured(),
    "VersionId": Refused("buckets have no versions: the present object is used"),
}
CHANGEABLE: Rows = {
    "PipelineName": Honoured(),
    "PipelineDisplayName": Honoured(),
    "PipelineDefinition": Honoured("checked before it is stored"),
    "PipelineDefinitionS3Location": Members(LOCATION),
    "PipelineDescription": Honoured(),
    "RoleArn": ROLE,
    "ParallelismConfiguration": Members({"MaxParallelExecutionSteps": Honoured("the default of executions")}),
    "PipelineVersionAliases": Honoured("aliases of the new version"),
}
TOKEN = Honoured("the same request with the same token has no further effect")
VERSION: Rows = make_honoured_rows("PipelineVersionId", "PipelineVersionAlias")
CREATED: Rows = make_honoured_rows("CreatedAfter", "CreatedBefore")

ROWS: Mapping[str, Rows] = {
    "CreatePipeline": {**CHANGEABLE, "ClientRequestToken": TOKEN, "Tags": TAGS},
    "UpdatePipeline": CHANGEABLE,
    "DescribePipeline": {"PipelineName": Honoured("name or ARN"), **VERSION},
    "DeletePipeline": {
        "PipelineName": Honoured("also deletes the versions"),
        "ClientRequestToken": Honoured("a repeated request succeeds, unless the server has restarted"),
    },
    "ListPipelines": {
        **make_honoured_rows(*LIST_PAGES, "PipelineNamePrefix"),
        **CREATED,
        "ManagedBy": Honoured("AWS manages no local pipeline"),
    },
    "ListPipelineVersions": {
        "PipelineName": Honoured("name or ARN"),
        **make_honoured_rows("SortOrder", "NextToken", "MaxResults"),
        **CREATED,
    },
    "UpdatePipelineVersion": {
        **make_honoured_rows(
            "PipelineArn", "PipelineVersionId", "PipelineVersionDisplayName", "PipelineVersionDescription"
        ),
        "PipelineVersionAliasOperations": Members(make_honoured_rows("Add", "Remove")),
    },
}
