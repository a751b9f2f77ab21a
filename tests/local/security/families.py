"""Families of operations, with valid requests for each family."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from hypothesis import strategies as st

from microjobs.contract import Layout
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.kinds import Kind, all_kinds
from microjobs_orchestrator.local.parity.table import TABLE
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT, ENDPOINT_CONFIG
from microjobs_orchestrator.local.resources.experiments.kinds import EXPERIMENT, TRIAL, TRIAL_COMPONENT
from microjobs_orchestrator.local.resources.inference_components.kinds import INFERENCE_COMPONENT
from microjobs_orchestrator.local.resources.model_registry.kinds import MODEL_PACKAGE, MODEL_PACKAGE_GROUP
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.pipelines.kinds import PIPELINE, PIPELINE_EXECUTION
from microjobs_orchestrator.local.s3.service import OPERATIONS as S3
from tests.local.security import hosted
from tests.local.security.hosted import ENCODABLE, IMAGE, INSTANCES, ROLE
from tests.local.security.requests import Request, json_requests, query_requests, rest_requests

SOURCE = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://fuzz/in"}}
RESOURCES = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
TAGS = [{"Key": "a", "Value": "b"}]
DEFINITION = {
    "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
    "RoleArn": ROLE,
    "InputDataConfig": [{"ChannelName": "train", "DataSource": SOURCE}],
    "OutputDataConfig": {"S3OutputPath": "s3://fuzz/out"},
    "ResourceConfig": {**RESOURCES, "InstanceCount": 2},
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
}
METRIC = {"Name": "loss", "Regex": "loss: ([0-9.]+)"}
INPUT = {
    "InputName": "i",
    "S3Input": {"S3Uri": "s3://fuzz/in", "LocalPath": str(Layout().processing("i")), "S3DataType": "S3Prefix"},
}
OUTPUT = {"S3Uri": "s3://fuzz/out", "LocalPath": str(Layout().processing("o")), "S3UploadMode": "EndOfJob"}
SPECIFICATION = {
    "Containers": [{"Image": IMAGE}],
    "SupportedTransformInstanceTypes": ["ml.m5.large"],
    "SupportedRealtimeInferenceInstanceTypes": ["ml.m5.large"],
}
VARIANT = {"VariantName": "v", "ModelName": "a", **INSTANCES}
METRIC_OF_CLIENTS = {"Namespace": "fuzz", "MetricName": "m", "Dimensions": [{"Name": "a", "Value": "b"}]}
METRIC_PERIOD = {"StartTime": 1_700_000_000, "EndTime": 1_700_003_600}
COMPONENT = {
    "EndpointName": "a",
    "VariantName": "v",
    "Specification": {"ModelName": "a", "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 128}},
    "RuntimeConfig": {"CopyCount": 1},
}
COMPONENT_CONFIG = {
    "ProductionVariants": [{"VariantName": "v", **INSTANCES}],
    "ExecutionRoleArn": ROLE,
}
"""The configuration of an endpoint for inference components."""

MLFLOW = {"ArtifactStoreUri": "s3://mlflow/artifacts", "RoleArn": ROLE}
"""The members of an MLflow server that does not start, because the bucket does not exist."""

BASES: Mapping[str, Any] = {
    "CreateProcessingJob": {
        "ProcessingInputs": [INPUT],
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": "o", "S3Output": OUTPUT}]},
        "ProcessingResources": {"ClusterConfig": RESOURCES},
        "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": ["true"]},
        "Environment": {"A": "b"},
        "RoleArn": ROLE,
        "Tags": TAGS,
    },
    "CreateTrainingJob": {
        **DEFINITION,
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
            **DEFINITION,
            "AlgorithmSpecification": {**DEFINITION["AlgorithmSpecification"], "MetricDefinitions": [METRIC]},  # type: ignore[dict-item]
        },
    },
    "CreateTransformJob": {
        "ModelName": "a",
        "TransformInput": {"DataSource": SOURCE, "SplitType": "Line", "ContentType": "text/csv"},
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
    "CreateModelPackage": {"InferenceSpecification": SPECIFICATION},
    "CreateModel": {"PrimaryContainer": {"Image": IMAGE, "Environment": {"A": "b"}}, "ExecutionRoleArn": ROLE},
    "CreateEndpointConfig": {"ProductionVariants": [VARIANT], "Tags": TAGS},
    "CreateEndpoint": {"EndpointConfigName": "a"},
    "UpdateEndpoint": {"EndpointConfigName": "a"},
    "CreateInferenceComponent": COMPONENT,
    "CreateMlflowTrackingServer": MLFLOW,
    "CreateMlflowApp": MLFLOW,
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
    "GetMetricStatistics": {**METRIC_OF_CLIENTS, **METRIC_PERIOD, "Period": 60, "Statistics": ["Sum"]},
    "GetMetricData": {
        **METRIC_PERIOD,
        "MetricDataQueries": [
            {"Id": "m", "MetricStat": {"Metric": METRIC_OF_CLIENTS, "Period": 60, "Stat": "p99"}},
            {"Id": "e", "Expression": "m + 1"},
        ],
    },
    **{kind.operations[verb]: {} for kind in all_kinds() if "Stop" in kind.verbs for verb in ("Describe", "Stop")},
}


def _list_operations(*kinds: Kind, more: Sequence[str] = ()) -> list[str]:
    """Return operations on kinds of resources; Create operations are repeated."""
    common = [operation for kind in kinds for operation in kind.operations.values()]
    return [*common, *(kind.operations["Create"] for kind in kinds for _ in range(2)), *more]


def _of_kind(kind: Kind) -> st.SearchStrategy[Request]:
    return json_requests("sagemaker", _list_operations(kind), BASES)


HOSTED = (MODEL, ENDPOINT_CONFIG, ENDPOINT, INFERENCE_COMPONENT)
UPDATES = (*("UpdateEndpoint",) * 2, "UpdateInferenceComponent", "UpdateInferenceComponentRuntimeConfig")
TRACKED = (EXPERIMENT, TRIAL, TRIAL_COMPONENT)
TRACKING_OPERATIONS = (
    *("UpdateExperiment", "UpdateTrial", "UpdateTrialComponent"),
    *("AssociateTrialComponent", "AssociateTrialComponent", "DisassociateTrialComponent"),
)
PIPELINES = (PIPELINE, PIPELINE_EXECUTION)
PIPELINE_OPERATIONS = sorted(name for name in TABLE["sagemaker"] if "Pipeline" in name)
REGISTERED = (MODEL_PACKAGE_GROUP, MODEL_PACKAGE)
"""`HOSTED`, `PIPELINES` and `REGISTERED` are kinds whose requests refer to each other."""
REGISTRY_OPERATIONS = (
    *("UpdateModelPackage", "UpdateModelPackage", "BatchDescribeModelPackage", "PutModelPackageGroupPolicy"),
    *("GetModelPackageGroupPolicy", "DeleteModelPackageGroupPolicy"),
)
LISTS = [*(kind.operations["List"] for kind in all_kinds()), "ListTrainingJobsForHyperParameterTuningJob"]
TOKENS = ["", "x", "WzEsICJhIl0=", "W10=", "MQ==", "WyJhIl0=", "W1tdLCBbXV0=", "WzFlOTk5LCAiYSJd", "bnVsbA==", "é"]

KEYS = st.sampled_from(["in/a.csv", "in/b", "out/x", "new", "in", "folder/"]) | ENCODABLE
S3_MEMBERS: Mapping[str, st.SearchStrategy[Any]] = {
    "Bucket": st.sampled_from(["fuzz"] * 8 + ["absent", "other-bucket", "..", "A", "x" * 70]),
    "Key": KEYS.filter(bool),
    "CopySource": st.sampled_from(
        ["fuzz/in/a.csv", "/fuzz/in/b", "fuzz/../x", "fuzz", "", "%ff", "fuzz/in/b?versionId=x"]
    ),
    "UploadId": st.sampled_from(["", "..", "0" * 32, "x"]),
    "Range": st.sampled_from(["bytes=0-1", "bytes=-2", "bytes=9-", "x", "bytes=0-99999999999999999999999"]),
    "ContinuationToken": st.sampled_from(TOKENS),
    "Prefix": ENCODABLE | st.sampled_from(["in/", "in"]),
    "Delimiter": st.sampled_from(["/", "a", "", "\0", "é"]),
    "EncodingType": st.just("url"),
    "MaxKeys": st.sampled_from([0, 1, -1, 1001, 1 << 31, 1 << 62]),
    "PartNumberMarker": st.sampled_from(["0", "-1", "9999999999999999999", "x"]),
    "PartNumber": st.sampled_from([0, 1, 10_001, -1, 1 << 40]),
    "ResponseContentDisposition": ENCODABLE,
    "ResponseContentType": ENCODABLE,
}
METRIC_TIMES = [datetime(2026, 1, 31, tzinfo=UTC), datetime(1990, 1, 1, tzinfo=UTC), datetime.now(UTC)]
METRIC_MEMBERS: Mapping[str, st.SearchStrategy[Any]] = {
    "TrialComponentName": st.sampled_from(["a-aws-training-job", "absent", "..", "A", "x" * 200]),
    "Namespace": st.sampled_from(["fuzz", "AWS/x"]) | ENCODABLE.filter(bool),
    "Period": st.sampled_from([1, 7, 60, 1 << 31]),
    "StartTime": st.sampled_from(METRIC_TIMES),
    "EndTime": st.sampled_from(METRIC_TIMES),
    "NextToken": st.sampled_from(TOKENS),
}

RELATED = (*HOSTED, *PIPELINES, *REGISTERED, *TRACKED)

FAMILIES: Mapping[str, Callable[[], st.SearchStrategy[Request]]] = {
    **{kind.title: partial(_of_kind, kind) for kind in all_kinds() if kind not in RELATED},
    "experiments": lambda: json_requests("sagemaker", _list_operations(*TRACKED, more=TRACKING_OPERATIONS), BASES),
    "hosting": lambda: json_requests("sagemaker", _list_operations(*HOSTED, more=UPDATES), BASES),
    "pipelines": lambda: json_requests("sagemaker", _list_operations(*PIPELINES, more=PIPELINE_OPERATIONS), BASES),
    "registry": lambda: json_requests("sagemaker", _list_operations(*REGISTERED, more=REGISTRY_OPERATIONS), BASES),
    "listing": lambda: json_requests(
        "sagemaker", [*LISTS, *["Search"] * 4, "AddTags", "ListTags", "DeleteTags"], BASES
    ),
    "logs": lambda: json_requests(
        "logs", ["DescribeLogGroups", "DescribeLogStreams", "GetLogEvents", "FilterLogEvents"], BASES
    ),
    "s3": lambda: rest_requests("s3", sorted(S3), S3_MEMBERS),
    "accounts": lambda: st.one_of(
        query_requests("sts", sorted(TABLE["sts"])),
        query_requests("iam", sorted(TABLE["iam"])),
        json_requests("ecr", sorted(TABLE["ecr"]), {}),
        json_requests("sqs", sorted(TABLE["sqs"]), {}),
        json_requests("application-autoscaling", sorted(TABLE["application-autoscaling"]), {}),
    ),
    "metrics": lambda: st.one_of(
        json_requests("cloudwatch", sorted(TABLE["cloudwatch"]), BASES),
        query_requests("cloudwatch", sorted(TABLE["cloudwatch"])),
        rest_requests("cloudwatch", sorted(TABLE["cloudwatch"]), METRIC_MEMBERS),  # CBOR
        rest_requests("sagemaker-metrics", sorted(TABLE["sagemaker-metrics"]), METRIC_MEMBERS),
    ),
    "kinds of hosting": hosted.creations,
    "invocations": hosted.invocations,
}
