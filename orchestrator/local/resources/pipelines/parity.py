"""Parity rows of pipelines."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity.common import PAGE_MEMBERS, ROLE, TAGS, make_honoured_rows
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Rows

LOCATION: Rows = {
    "Bucket": Honoured(),
    "ObjectKey": Honoured(),
    "VersionId": Refused("buckets have no versions: the current object is used"),
}
UPDATABLE_ROWS: Rows = {
    "PipelineName": Honoured(),
    "PipelineDisplayName": Honoured(),
    "PipelineDefinition": Honoured("checked before it is stored"),
    "PipelineDefinitionS3Location": Members(LOCATION),
    "PipelineDescription": Honoured(),
    "RoleArn": ROLE,
    "ParallelismConfiguration": Members({"MaxParallelExecutionSteps": Honoured("the default of executions")}),
    "PipelineVersionAliases": Honoured("aliases of the new version"),
}
TOKEN = Honoured("a repeated request with the same token has no effect")
VERSION: Rows = make_honoured_rows("PipelineVersionId", "PipelineVersionAlias")
CREATION_TIME_FILTERS: Rows = make_honoured_rows("CreatedAfter", "CreatedBefore")

EXECUTION = make_honoured_rows("PipelineExecutionArn")
PARALLELISM = Members({"MaxParallelExecutionSteps": Honoured("may change while the execution runs")})
PAGE_ROWS = make_honoured_rows("NextToken", "MaxResults")
EXECUTION_ROWS: Mapping[str, Rows] = {
    "StartPipelineExecution": {
        "PipelineName": Honoured("name or ARN"),
        **make_honoured_rows("PipelineExecutionDisplayName", "PipelineExecutionDescription"),
        "PipelineParameters": Members(make_honoured_rows("Name", "Value")),
        "ClientRequestToken": TOKEN,
        "ParallelismConfiguration": PARALLELISM,
        "SelectiveExecutionConfig": Members(
            {
                "SourcePipelineExecutionArn": Honoured("its results and parameters are reused"),
                "SelectedSteps": Members(make_honoured_rows("StepName")),
            }
        ),
        **VERSION,
        "MlflowExperimentName": Honoured("this experiment replaces the experiment of the definition's MlflowConfig"),
        "RoleArn": ROLE,
    },
    "DescribePipelineExecution": EXECUTION,
    "UpdatePipelineExecution": {
        **EXECUTION,
        **make_honoured_rows("PipelineExecutionDisplayName", "PipelineExecutionDescription"),
        "ParallelismConfiguration": PARALLELISM,
    },
    "StopPipelineExecution": {
        **EXECUTION,
        "ClientRequestToken": NoEffect(
            "a repeated request changes nothing, and is an error after the end of the execution"
        ),
    },
    "RetryPipelineExecution": {
        **EXECUTION,
        "ClientRequestToken": Honoured("a request with the token of the last retry has no effect"),
        "ParallelismConfiguration": PARALLELISM,
    },
    "ListPipelineExecutions": {
        "PipelineName": Honoured("name or ARN"),
        **make_honoured_rows("SortBy", "SortOrder"),
        **PAGE_ROWS,
        **CREATION_TIME_FILTERS,
        "PipelineVersionAlias": Refused("list all executions: each has its PipelineVersionId"),
    },
    "ListPipelineExecutionSteps": {**EXECUTION, **PAGE_ROWS, "SortOrder": Honoured("by the time of the start")},
    "ListPipelineParametersForExecution": {**EXECUTION, **PAGE_ROWS},
    "DescribePipelineDefinitionForExecution": EXECUTION,
    "SendPipelineExecutionStepSuccess": {
        "CallbackToken": Honoured(),
        "OutputParameters": Members(make_honoured_rows("Name", "Value")),
        "ClientRequestToken": NoEffect("each CallbackToken is answered only once"),
    },
    "SendPipelineExecutionStepFailure": {
        **make_honoured_rows("CallbackToken", "FailureReason"),
        "ClientRequestToken": NoEffect("each CallbackToken is answered only once"),
    },
}

ROWS: Mapping[str, Rows] = {
    **EXECUTION_ROWS,
    "CreatePipeline": {**UPDATABLE_ROWS, "ClientRequestToken": TOKEN, "Tags": TAGS},
    "UpdatePipeline": UPDATABLE_ROWS,
    "DescribePipeline": {"PipelineName": Honoured("name or ARN"), **VERSION},
    "DeletePipeline": {
        "PipelineName": Honoured("also deletes the versions and executions"),
        "ClientRequestToken": Honoured("a repeated request succeeds, unless the server has restarted"),
    },
    "ListPipelines": {
        **make_honoured_rows(*PAGE_MEMBERS, "PipelineNamePrefix"),
        **CREATION_TIME_FILTERS,
        "ManagedBy": Honoured("with `AWS`, the list is empty: AWS manages no local pipeline"),
    },
    "ListPipelineVersions": {
        "PipelineName": Honoured("name or ARN"),
        **make_honoured_rows("SortOrder", "NextToken", "MaxResults"),
        **CREATION_TIME_FILTERS,
    },
    "UpdatePipelineVersion": {
        **make_honoured_rows(
            "PipelineArn", "PipelineVersionId", "PipelineVersionDisplayName", "PipelineVersionDescription"
        ),
        "PipelineVersionAliasOperations": Members(make_honoured_rows("Add", "Remove")),
    },
}
