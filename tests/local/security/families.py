"""Families of operations, with valid requests for each family."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from hypothesis import strategies as st

from microjobs.contract import Layout
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.kinds import Kind, load_kinds
from microjobs_orchestrator.local.parity.table import TABLE
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT, ENDPOINT_CONFIG
from microjobs_orchestrator.local.resources.experiments.kinds import EXPERIMENT, TRIAL, TRIAL_COMPONENT
from microjobs_orchestrator.local.resources.inference_components.kinds import INFERENCE_COMPONENT
from microjobs_orchestrator.local.resources.model_registry.kinds import MODEL_PACKAGE, MODEL_PACKAGE_GROUP
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.pipelines.kinds import PIPELINE, PIPELINE_EXECUTION
from microjobs_orchestrator.local.s3.service import OPERATIONS as S3_OPERATIONS
from tests.local.security import hosting_requests
from tests.local.security.hosting_requests import IMAGE, INSTANCE_MEMBERS, ROLE, UTF8_TEXTS
from tests.local.security.requests import Request, json_requests, query_requests, rest_requests

DATA_SOURCE = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://fuzz/in"}}
CLUSTER_CONFIG = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
TAGS = [{"Key": "a", "Value": "b"}]
ALGORITHM: dict[str, Any] = {"TrainingImage": IMAGE, "TrainingInputMode": "File"}
JOB_DEFINITION = {
    "AlgorithmSpecification": ALGORITHM,
    "RoleArn": ROLE,
    "InputDataConfig": [{"ChannelName": "train", "DataSource": DATA_SOURCE}],
    "OutputDataConfig": {"S3OutputPath": "s3://fuzz/out"},
    "ResourceConfig": {**CLUSTER_CONFIG, "InstanceCount": 2},
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
}
METRIC_DEFINITION = {"Name": "loss", "Regex": "loss: ([0-9.]+)"}
PROCESSING_INPUT = {
    "InputName": "i",
    "S3Input": {"S3Uri": "s3://fuzz/in", "LocalPath": str(Layout().processing("i")), "S3DataType": "S3Prefix"},
}
PROCESSING_OUTPUT = {"S3Uri": "s3://fuzz/out", "LocalPath": str(Layout().processing("o")), "S3UploadMode": "EndOfJob"}
INFERENCE_SPECIFICATION = {
    "Containers": [{"Image": IMAGE}],
    "SupportedTransformInstanceTypes": ["ml.m5.large"],
    "SupportedRealtimeInferenceInstanceTypes": ["ml.m5.large"],
}
VARIANT = {"VariantName": "v", "ModelName": "a", **INSTANCE_MEMBERS}
CLIENT_METRIC = {"Namespace": "fuzz", "MetricName": "m", "Dimensions": [{"Name": "a", "Value": "b"}]}
METRIC_PERIOD = {"StartTime": 1_700_000_000, "EndTime": 1_700_003_600}
INFERENCE_COMPONENT_MEMBERS = {
    "EndpointName": "a",
    "VariantName": "v",
    "Specification": {"ModelName": "a", "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 128}},
    "RuntimeConfig": {"CopyCount": 1},
}
COMPONENT_CONFIG = {
    "ProductionVariants": [{"VariantName": "v", **INSTANCE_MEMBERS}],
    "ExecutionRoleArn": ROLE,
}
"""Members of CreateEndpointConfig for an endpoint with inference components."""

MLFLOW_MEMBERS = {"ArtifactStoreUri": "s3://mlflow/artifacts", "RoleArn": ROLE}
"""The members of an MLflow server that does not start, because the bucket does not exist."""

BASE_MEMBERS: Mapping[str, Any] = {
    "CreateProcessingJob": {
        "ProcessingInputs": [PROCESSING_INPUT],
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": "o", "S3Output": PROCESSING_OUTPUT}]},
        "ProcessingResources": {"ClusterConfig": CLUSTER_CONFIG},
        "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": ["true"]},
        "Environment": {"A": "b"},
        "RoleArn": ROLE,
        "Tags": TAGS,
    },
    "CreateTrainingJob": {
        **JOB_DEFINITION,
        "HyperParameters": {"epochs": "1"},
        "CheckpointConfig": {"S3Uri": "s3://fuzz/checkpoints"},
        "Tags": TAGS,
    },
    "CreateHyperParameterTuningJob": {
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 2},
            "ParameterRanges": {"IntegerParameterRanges": [{"Name": "n", "MinValue": "1", "MaxValue": "9"}]},
        },
        "TrainingJobDefinition": {
            **JOB_DEFINITION,
            "AlgorithmSpecification": {**ALGORITHM, "MetricDefinitions": [METRIC_DEFINITION]},
        },
    },
    "CreateTransformJob": {
        "ModelName": "a",
        "TransformInput": {"DataSource": DATA_SOURCE, "SplitType": "Line", "ContentType": "text/csv"},
        "TransformOutput": {"S3OutputPath": "s3://fuzz/out"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    },
    "CreatePipeline": {
        "PipelineDefinition": json.dumps({"Version": "2020-12-01", "Steps": [{"Name": "stop", "Type": "Fail"}]}),
        "RoleArn": ROLE,
        "ClientRequestToken": "t" * 32,
    },
    "UpdatePipeline": {
        "PipelineDefinition": json.dumps({"Version": "2020-12-01", "Steps": [{"Name": "end", "Type": "Fail"}]}),
        "PipelineVersionAliases": ["latest"],
    },
    "DescribePipeline": {"PipelineVersionId": 1},
    "DeletePipeline": {"ClientRequestToken": "t" * 32},
    "ListPipelineVersions": {"MaxResults": 1},
    "UpdatePipelineVersion": {
        "PipelineArn": format_arn("pipeline/a"),
        "PipelineVersionId": 1,
        "PipelineVersionAliasOperations": {"Add": ["b"], "Remove": ["latest"]},
    },
    "StartPipelineExecution": {"ClientRequestToken": "t" * 32},
    "ListPipelineExecutions": {"MaxResults": 1},
    "CreateModelPackage": {"InferenceSpecification": INFERENCE_SPECIFICATION},
    "CreateModel": {"PrimaryContainer": {"Image": IMAGE, "Environment": {"A": "b"}}, "ExecutionRoleArn": ROLE},
    "CreateEndpointConfig": {"ProductionVariants": [VARIANT], "Tags": TAGS},
    "CreateEndpoint": {"EndpointConfigName": "a"},
    "UpdateEndpoint": {"EndpointConfigName": "a"},
    "CreateInferenceComponent": INFERENCE_COMPONENT_MEMBERS,
    "CreateMlflowTrackingServer": MLFLOW_MEMBERS,
    "CreateMlflowApp": MLFLOW_MEMBERS,
    "CreateTrial": {"ExperimentName": "a"},
    "CreateTrialComponent": {"Parameters": {"a": {"NumberValue": 1.0}}, "StartTime": 1_700_000_000},
    "UpdateTrialComponent": {"ParametersToRemove": ["a"], "Status": {"PrimaryStatus": "Completed"}},
    "AssociateTrialComponent": {"TrialName": "a", "TrialComponentName": "a"},
    "UpdateInferenceComponent": {"RuntimeConfig": {"CopyCount": 0}},
    "UpdateInferenceComponentRuntimeConfig": {"DesiredRuntimeConfig": {"CopyCount": 2}},
    "UpdateModelPackage": {"ModelPackageArn": format_arn("model-package/a/1"), "ModelApprovalStatus": "Approved"},
    "AddTags": {"ResourceArn": format_arn("model/a"), "Tags": TAGS},
    "ListTags": {"ResourceArn": format_arn("model/a")},
    "DeleteTags": {"ResourceArn": format_arn("model/a"), "TagKeys": ["a"]},
    "GetLogEvents": {"logGroupName": "/aws/sagemaker/TrainingJobs", "logStreamName": "seen/algo-1"},
    "DescribeLogStreams": {"logGroupName": "/aws/sagemaker/TrainingJobs", "logStreamNamePrefix": "seen/"},
    "FilterLogEvents": {"logGroupName": "/aws/sagemaker/TrainingJobs", "filterPattern": "a"},
    "PutMetricData": {
        "Namespace": "fuzz",
        "MetricData": [{"MetricName": "m", "Dimensions": [{"Name": "a", "Value": "b"}], "Value": 1, "Unit": "Count"}],
    },
    "GetMetricStatistics": {**CLIENT_METRIC, **METRIC_PERIOD, "Period": 60, "Statistics": ["Sum"]},
    "GetMetricData": {
        **METRIC_PERIOD,
        "MetricDataQueries": [
            {"Id": "m", "MetricStat": {"Metric": CLIENT_METRIC, "Period": 60, "Stat": "p99"}},
            {"Id": "e", "Expression": "m + 1"},
        ],
    },
    **{kind.operations[verb]: {} for kind in load_kinds() if "Stop" in kind.verbs for verb in ("Describe", "Stop")},
}
"""Valid members that the server accepts, by operation. `requests.members` adds the name of the resource."""


def _list_operations(*kinds: Kind, added_operations: Sequence[str] = ()) -> list[str]:
    """Return the common operations of kinds, and other operations. Create operations are repeated, so that they are
    chosen more often."""
    common_operations = [operation for kind in kinds for operation in kind.operations.values()]
    return [*common_operations, *(kind.operations["Create"] for kind in kinds for _ in range(2)), *added_operations]


def _make_requests_of_kind(kind: Kind) -> st.SearchStrategy[Request]:
    return json_requests("sagemaker", _list_operations(kind), BASE_MEMBERS)


HOSTING_KINDS = (MODEL, ENDPOINT_CONFIG, ENDPOINT, INFERENCE_COMPONENT)
UPDATE_OPERATIONS = (*("UpdateEndpoint",) * 2, "UpdateInferenceComponent", "UpdateInferenceComponentRuntimeConfig")
TRACKING_KINDS = (EXPERIMENT, TRIAL, TRIAL_COMPONENT)
TRACKING_OPERATIONS = (
    *("UpdateExperiment", "UpdateTrial", "UpdateTrialComponent"),
    *("AssociateTrialComponent", "AssociateTrialComponent", "DisassociateTrialComponent"),
)
PIPELINE_KINDS = (PIPELINE, PIPELINE_EXECUTION)
PIPELINE_OPERATIONS = sorted(name for name in TABLE["sagemaker"] if "Pipeline" in name)
REGISTRY_KINDS = (MODEL_PACKAGE_GROUP, MODEL_PACKAGE)
REGISTRY_OPERATIONS = (
    *("UpdateModelPackage", "UpdateModelPackage", "BatchDescribeModelPackage", "PutModelPackageGroupPolicy"),
    *("GetModelPackageGroupPolicy", "DeleteModelPackageGroupPolicy"),
)
LIST_OPERATIONS = [*(kind.operations["List"] for kind in load_kinds()), "ListTrainingJobsForHyperParameterTuningJob"]
FORGED_TOKENS = [
    "",
    "x",
    "WzEsICJhIl0=",
    "W10=",
    "MQ==",
    "WyJhIl0=",
    "W1tdLCBbXV0=",
    "WzFlOTk5LCAiYSJd",
    "bnVsbA==",
    "é",
]
"""Page tokens that the server did not issue."""

KEYS = st.sampled_from(["in/a.csv", "in/b", "out/x", "new", "in", "folder/"]) | UTF8_TEXTS
S3_MEMBERS: Mapping[str, st.SearchStrategy[Any]] = {
    "Bucket": st.sampled_from(["fuzz"] * 8 + ["absent", "other-bucket", "..", "A", "x" * 70]),
    "Key": KEYS.filter(bool),
    "CopySource": st.sampled_from(
        ["fuzz/in/a.csv", "/fuzz/in/b", "fuzz/../x", "fuzz", "", "%ff", "fuzz/in/b?versionId=x"]
    ),
    "UploadId": st.sampled_from(["", "..", "0" * 32, "x"]),
    "Range": st.sampled_from(["bytes=0-1", "bytes=-2", "bytes=9-", "x", "bytes=0-99999999999999999999999"]),
    "ContinuationToken": st.sampled_from(FORGED_TOKENS),
    "Prefix": UTF8_TEXTS | st.sampled_from(["in/", "in"]),
    "Delimiter": st.sampled_from(["/", "a", "", "\0", "é"]),
    "EncodingType": st.just("url"),
    "MaxKeys": st.sampled_from([0, 1, -1, 1001, 1 << 31, 1 << 62]),
    "PartNumberMarker": st.sampled_from(["0", "-1", "9999999999999999999", "x"]),
    "PartNumber": st.sampled_from([0, 1, 10_001, -1, 1 << 40]),
    "ResponseContentDisposition": UTF8_TEXTS,
    "ResponseContentType": UTF8_TEXTS,
}
METRIC_TIMES = [datetime(2026, 1, 31, tzinfo=UTC), datetime(1990, 1, 1, tzinfo=UTC), datetime.now(UTC)]
METRIC_MEMBERS: Mapping[str, st.SearchStrategy[Any]] = {
    "TrialComponentName": st.sampled_from(["a-aws-training-job", "absent", "..", "A", "x" * 200]),
    "Namespace": st.sampled_from(["fuzz", "AWS/x"]) | UTF8_TEXTS.filter(bool),
    "Period": st.sampled_from([1, 7, 60, 1 << 31]),
    "StartTime": st.sampled_from(METRIC_TIMES),
    "EndTime": st.sampled_from(METRIC_TIMES),
    "NextToken": st.sampled_from(FORGED_TOKENS),
}

RELATED_KINDS = (*HOSTING_KINDS, *PIPELINE_KINDS, *REGISTRY_KINDS, *TRACKING_KINDS)
"""Kinds whose requests refer to other kinds, and are therefore generated together."""

FAMILIES: Mapping[str, Callable[[], st.SearchStrategy[Request]]] = {
    **{kind.title: partial(_make_requests_of_kind, kind) for kind in load_kinds() if kind not in RELATED_KINDS},
    "experiments": lambda: json_requests(
        "sagemaker", _list_operations(*TRACKING_KINDS, added_operations=TRACKING_OPERATIONS), BASE_MEMBERS
    ),
    "hosting": lambda: json_requests(
        "sagemaker", _list_operations(*HOSTING_KINDS, added_operations=UPDATE_OPERATIONS), BASE_MEMBERS
    ),
    "pipelines": lambda: json_requests(
        "sagemaker", _list_operations(*PIPELINE_KINDS, added_operations=PIPELINE_OPERATIONS), BASE_MEMBERS
    ),
    "registry": lambda: json_requests(
        "sagemaker", _list_operations(*REGISTRY_KINDS, added_operations=REGISTRY_OPERATIONS), BASE_MEMBERS
    ),
    "listing": lambda: json_requests(
        "sagemaker",
        [*LIST_OPERATIONS, *["Search"] * 4, "GetSearchSuggestions", "AddTags", "ListTags", "DeleteTags"],
        BASE_MEMBERS,
    ),
    "logs": lambda: json_requests(
        "logs", ["DescribeLogGroups", "DescribeLogStreams", "GetLogEvents", "FilterLogEvents"], BASE_MEMBERS
    ),
    "s3": lambda: rest_requests("s3", sorted(S3_OPERATIONS), S3_MEMBERS),
    "other services": lambda: st.one_of(
        query_requests("sts", sorted(TABLE["sts"])),
        query_requests("iam", sorted(TABLE["iam"])),
        json_requests("ecr", sorted(TABLE["ecr"]), {}),
        json_requests("sqs", sorted(TABLE["sqs"]), {}),
        json_requests("application-autoscaling", sorted(TABLE["application-autoscaling"]), {}),
    ),
    "metrics": lambda: st.one_of(
        json_requests("cloudwatch", sorted(TABLE["cloudwatch"]), BASE_MEMBERS),
        query_requests("cloudwatch", sorted(TABLE["cloudwatch"])),
        rest_requests("cloudwatch", sorted(TABLE["cloudwatch"]), METRIC_MEMBERS),  # CloudWatch uses CBOR
        rest_requests("sagemaker-metrics", sorted(TABLE["sagemaker-metrics"]), METRIC_MEMBERS),
    ),
    "kinds of hosting": hosting_requests.resource_requests,
    "invocations": hosting_requests.invocations,
}
"""Functions that create the strategy for the requests of one family, by the name of the family."""
