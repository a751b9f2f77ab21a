"""Each member with a row `Honoured` is read by the code that performs the operation.

Requests are mappings that record which of their members are read, at all levels. `READ_EARLIER` matches the members
that the code reads elsewhere, such as from headers.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from hashlib import md5
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from microjobs.contract import Layout
from microjobs_orchestrator.local import state
from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.identity import ACCOUNT, format_arn
from microjobs_orchestrator.local.kinds import load_kinds
from microjobs_orchestrator.local.lifecycle.context import Context, Settings
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.logs import LogStore
from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.parity.rows import Honoured, Members, Rows
from microjobs_orchestrator.local.parity.table import TABLE
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.protocols.results import Service
from microjobs_orchestrator.local.resources.mlflow import rest_client
from microjobs_orchestrator.local.resources.mlflow.process import find_version
from microjobs_orchestrator.local.resources.model_registry.groups import create_group
from microjobs_orchestrator.local.resources.pipelines.versions import add_version
from microjobs_orchestrator.local.s3.body import Body
from microjobs_orchestrator.local.s3.byte_ranges import FileBody
from microjobs_orchestrator.local.s3.call import Call
from microjobs_orchestrator.local.s3.details import Details
from microjobs_orchestrator.local.s3.service import OPERATIONS as S3_OPERATIONS
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.s3.uploads import Uploads
from microjobs_orchestrator.local.server import create_services
from microjobs_orchestrator.local.services.autoscaling.records import make_target_name
from microjobs_orchestrator.local.state import Owner, State
from tests.local.jobs.fake_programs import FakePrograms
from tests.local.log_lines import append_line
from tests.local.resources.package_requests import make_package_request
from tests.local.security.stub import StubRuntime

ROLE_ARN = "arn:aws:iam::000000000000:role/microjobs"
REPOSITORY_ARN = "arn:aws:ecr:us-east-1:000000000000:repository/repository"
EXECUTION_ARN = "arn:e"
"""The ARN of a failed execution of the pipeline `p`."""
LOG_GROUP, LOG_STREAM = "/aws/sagemaker/TrainingJobs", "job/algo-1-5"


class Recorder(dict[str, Any]):
    """A request that records the paths of its members that are read."""

    def __init__(self, members: Mapping[str, Any], read_paths: set[str], path: str = "") -> None:
        self._read_paths, self._path = read_paths, path
        super().__init__({name: self._wrap(value, path + name) for name, value in members.items()})

    def _wrap(self, value: Any, path: str) -> Any:
        if isinstance(value, list):
            return [self._wrap(item, path) for item in value]
        return Recorder(value, self._read_paths, f"{path}.") if isinstance(value, dict) else value

    def __getitem__(self, name: str) -> Any:
        self._read_paths.add(self._path + name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self._read_paths.add(f"{self._path}{name}")
        return super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._read_paths.add(self._path + name)
        return super().get(name, default)


def list_honoured_members(rows: Rows, path: str = "") -> Iterator[str]:
    """Yield the members that must be read: honoured members with more than one possible value."""
    for name, row in rows.items():
        if isinstance(row, Members):
            yield from list_honoured_members(row.rows, f"{path}{name}.")
        elif isinstance(row, Honoured) and len(row.values) != 1:
            yield path + name


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    home = Home(tmp_path / "home")
    home.create()
    store, runtime = ObjectStore(home), StubRuntime()
    store.create_bucket("bucket")
    (home.buckets / "bucket" / "in").mkdir()
    (home.buckets / "bucket" / "in" / "a").write_text('{"source-ref": "s3://bucket/in/a"}\n')
    settings = Settings("http://127.0.0.1:1")
    state, logs, metrics = State(home.state), LogStore(home.logs), MetricStore(home.metrics)
    new_context = Context(home, state, store, logs, metrics, runtime, settings, FakePrograms())
    append_line(new_context.logs.create(LOG_GROUP, LOG_STREAM), 1, b"line")
    yield new_context
    store.close()
    new_context.state.close()
    new_context.metrics.close()
    runtime.close()


def list_unread_members(
    service: str, operation: str, call: Callable[[Recorder], object], *requests: dict[str, Any]
) -> set[str]:
    """Return the honoured members of an operation that no call with these requests reads."""
    read_paths: set[str] = set()
    for request in requests:
        with suppress(ServiceError):  # the code has read the name, but the resource does not exist
            call(Recorder(request, read_paths))
    return set(list_honoured_members(TABLE[service][operation])) - read_paths


# --- CloudWatch Logs, STS, IAM, ECR, and SageMaker except Create and Update ---

REPOSITORY_REQUEST = {"repositoryName": "repository", "filter": {"tagStatus": "ANY"}}
LOG_REQUEST = {"logGroupName": LOG_GROUP, "logStreamName": LOG_STREAM}

ARTIFACT_SOURCE = {"SourceUri": "s3://bucket/in/a", "SourceTypes": [{"SourceIdType": "Custom", "Value": "v"}]}
METRIC_DIMENSIONS = [{"Name": "n", "Value": "v"}]
METRIC = {"Namespace": "space", "MetricName": "m", "Dimensions": METRIC_DIMENSIONS}
SCALABLE_TARGET = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "inference-component/x",
    "ScalableDimension": "sagemaker:inference-component:DesiredCopyCount",
}
METRIC_PERIOD = {"StartTime": 0, "EndTime": 60}

REQUESTS: Mapping[str, list[dict[str, Any]]] = {
    "DescribeLogGroups": [{}, {"logGroupNamePattern": "T"}, {"logGroupNamePrefix": "/"}, {"logGroupIdentifiers": []}],
    **{
        name: [LOG_REQUEST, {"logGroupIdentifier": LOG_GROUP, "logStreamName": LOG_STREAM}]
        for name in ("DescribeLogStreams", "GetLogEvents", "FilterLogEvents")
    },
    "RegisterScalableTarget": [
        {
            **SCALABLE_TARGET,
            "MinCapacity": 1,
            "MaxCapacity": 2,
            "SuspendedState": {"DynamicScalingInSuspended": True, "DynamicScalingOutSuspended": True},
        }
    ],
    "PutScalingPolicy": [
        {
            **SCALABLE_TARGET,
            "PolicyName": "p",
            "TargetTrackingScalingPolicyConfiguration": {"TargetValue": 1.0, **metric},
        }
        for metric in (
            {
                "PredefinedMetricSpecification": {
                    "PredefinedMetricType": "SageMakerInferenceComponentInvocationsPerCopy"
                }
            },
            {"CustomizedMetricSpecification": {**METRIC, "Statistic": "Average"}},
        )
    ],
    "AssumeRole": [{"RoleArn": ROLE_ARN, "RoleSessionName": "abc", "SourceIdentity": "me"}],
    "UntagRole": [{"RoleName": "tagged", "TagKeys": ["k"]}],
    "DescribeImages": [REPOSITORY_REQUEST, {**REPOSITORY_REQUEST, "imageIds": [{"imageTag": "a", "imageDigest": "b"}]}],
    "ListImages": [REPOSITORY_REQUEST],
    "TagResource": [{"resourceArn": REPOSITORY_ARN, "tags": [{"Key": "k", "Value": "v"}]}],
    "UntagResource": [{"resourceArn": REPOSITORY_ARN, "tagKeys": ["k"]}],
    "Search": [
        {
            "Resource": "Model",
            "SearchExpression": {
                "Filters": [{"Name": "ModelName", "Operator": "Equals", "Value": "m"}],
                "NestedFilters": [
                    {
                        "NestedPropertyName": "Tags",
                        "Filters": [{"Name": "Tags.Key", "Operator": "Equals", "Value": "k"}],
                    }
                ],
                "Operator": "And",
            },
            "VisibilityConditions": [{"Key": "Tags.k", "Value": "v"}],
        }
    ],
    "GetSearchSuggestions": [
        {"Resource": "Model", "SuggestionQuery": {"PropertyNameQuery": {"PropertyNameHint": "Tags."}}}
    ],
    "DeleteArtifact": [{"ArtifactArn": "a"}, {"Source": ARTIFACT_SOURCE}],
    "CreateRepository": [{"repositoryName": "new", "tags": [{"Key": "k", "Value": "v"}]}],
    "PutModelPackageGroupPolicy": [{"ModelPackageGroupName": "group", "ResourcePolicy": "{}"}],
    "ListModelPackages": [{"ModelPackageGroupName": "group"}],
    "ListPipelineExecutionSteps": [{"PipelineExecutionArn": EXECUTION_ARN}],
    "SendPipelineExecutionStepSuccess": [{"CallbackToken": "t", "OutputParameters": [{"Name": "n", "Value": "v"}]}],
    "StartPipelineExecution": [
        {
            "PipelineName": "p",
            "PipelineExecutionDisplayName": "d",
            "PipelineParameters": [{"Name": "parameter", "Value": "v"}],
            "PipelineExecutionDescription": "d",
            "ClientRequestToken": "s" * 32,
            "ParallelismConfiguration": {"MaxParallelExecutionSteps": 1},
            "SelectiveExecutionConfig": {
                "SourcePipelineExecutionArn": EXECUTION_ARN,
                "SelectedSteps": [{"StepName": "stop"}],
            },
            "PipelineVersionId": 1,
        },
        {"PipelineName": "p", "ClientRequestToken": "u" * 32, "PipelineVersionAlias": "a"},
    ],
    "RetryPipelineExecution": [
        {
            "PipelineExecutionArn": EXECUTION_ARN,
            "ClientRequestToken": "r" * 32,
            "ParallelismConfiguration": {"MaxParallelExecutionSteps": 1},
        }
    ],
    "GetMetricData": [
        {**METRIC_PERIOD, "MetricDataQueries": [query], "NextToken": "0", "ScanBy": "TimestampAscending"}
        | {"MaxDatapoints": 5}
        for query in (
            {"Id": "m", "MetricStat": {"Metric": METRIC, "Period": 60, "Stat": "Sum", "Unit": "None"}, "Label": "l"},
            {"Id": "e", "Expression": "1 + 1", "ReturnData": True},
        )
    ],
    "GetMetricStatistics": [
        {**METRIC, **METRIC_PERIOD, "Period": 60, "Statistics": ["Sum"], "ExtendedStatistics": ["p1"], "Unit": "None"}
    ],
    "BatchPutMetrics": [
        {
            "TrialComponentName": "trained-aws-training-job",
            "MetricData": [{"MetricName": "m", "Timestamp": 1, "Step": 1, "Value": 1}],
        }
    ],
    "BatchGetMetrics": [
        {
            "MetricQueries": [
                {
                    "MetricName": "m",
                    "ResourceArn": format_arn("experiment-trial-component/trained-aws-training-job"),
                    "MetricStat": "Avg",
                    "Period": "IterationNumber",
                    "XAxisType": "IterationNumber",
                    "Start": 0,
                    "End": 1,
                }
            ]
        }
    ],
    "ListMetrics": [{**METRIC, "NextToken": "0", "RecentlyActive": "PT3H"}],
    "PutMetricData": [
        {"Namespace": "space", "MetricData": [{"MetricName": "m", "Dimensions": METRIC_DIMENSIONS, **datum}]}
        for datum in (
            {"Value": 1, "Timestamp": time.time(), "Unit": "Count"},
            {"Values": [1], "Counts": [1]},
            {"StatisticValues": {"SampleCount": 1, "Sum": 1, "Minimum": 1, "Maximum": 1}},
        )
    ],
    "CreateRole": [{"RoleName": "new", "AssumeRolePolicyDocument": "{}", "Tags": [{"Key": "k", "Value": "v"}]}],
}
"""Requests that pass the checks of their operations. The requests of `make_minimal_request` would not pass these
checks."""

ALARM_ARN = "arn:aws:cloudwatch:us-east-1:000000000000:alarm:alarm"
EVALUATION = {"EvaluationPeriods": 1, "Threshold": 1.0, "ComparisonOperator": "GreaterThanThreshold"}
ALARM_REQUEST = {"AlarmName": "alarm", **METRIC, "Period": 60, "Statistic": "Sum", "Unit": "None", **EVALUATION}
ALARM_REQUESTS: Mapping[str, list[dict[str, Any]]] = {
    "PutMetricAlarm": [
        {**ALARM_REQUEST, "AlarmDescription": "d", "DatapointsToAlarm": 1, "TreatMissingData": "ignore"}
        | {"Tags": [{"Key": "k", "Value": "v"}], "AlarmName": "new"},
        {"AlarmName": "p1", **METRIC, "Period": 60, "ExtendedStatistic": "p1", **EVALUATION},
        {
            "AlarmName": "expression",
            "Metrics": [
                {
                    "Id": "m",
                    "MetricStat": {"Metric": METRIC, "Period": 60, "Stat": "Sum", "Unit": "None"},
                    "ReturnData": False,
                },
                {"Id": "e", "Expression": "m * 2"},
            ],
            **EVALUATION,
        },
    ],
    "DescribeAlarms": [{"AlarmNamePrefix": "a", "StateValue": "OK", "MaxRecords": 1}],
    "SetAlarmState": [{"AlarmName": "alarm", "StateValue": "OK", "StateReason": "r", "StateReasonData": "{}"}],
    "TagResource": [{"ResourceARN": ALARM_ARN, "Tags": [{"Key": "k", "Value": "v"}]}],
    "UntagResource": [{"ResourceARN": ALARM_ARN, "TagKeys": ["k"]}],
}
"""Requests to CloudWatch. They are not in REQUESTS, because other services have operations with the same names."""

OBJECTIVE = {"Type": "Minimize", "MetricName": "loss"}
FAIL_DEFINITION = json.dumps(
    {
        "Version": "2020-12-01",
        "Parameters": [{"Name": "parameter", "Type": "String", "DefaultValue": "x"}],
        "Steps": [{"Name": "stop", "Type": "Fail"}],
    }
)
"""The definition of the pipelines `p` and `pipeline`."""

MEMBER_VALUES: Mapping[str, Any] = {
    "PipelineName": "p",
    "PipelineExecutionArn": EXECUTION_ARN,
    "ResourceArn": "arn:m",
    "HyperParameterTuningJobName": "t",
    "Tags": [{"Key": "k", "Value": "v"}],
    "TagKeys": ["k"],
    "AssumeRolePolicyDocument": "{}",
    "PolicyDocument": "{}",
}
"""Values of members in the requests of `make_minimal_request`. All other members have the value `x`."""


def make_minimal_request(service: str, operation: str) -> dict[str, Any]:
    """Return a request with the members that the model requires."""
    shape = load_operation_model(service, operation).input_shape
    required = shape.required_members if shape else []
    return {name: MEMBER_VALUES.get(name, "x") for name in required}


SIMPLE_OPERATIONS = [
    (service, operation)
    for service in TABLE
    for operation in TABLE[service]
    if service not in ("s3", "sagemaker-runtime")
    and not (service == "sagemaker" and operation.startswith(("Create", "Update")))
]


def add_execution(state: State) -> None:
    """Add the execution `EXECUTION_ARN`, which has failed."""
    request, owner = {"Definition": FAIL_DEFINITION, "Parameters": {}}, Owner("pipeline", "p")
    state.add("pipeline-execution", "e", EXECUTION_ARN, "Failed", request, {}, owner=owner)


def add_alarm(state: State) -> None:
    """Add the alarm `alarm`, whose state is OK."""
    state.add("alarm", "alarm", ALARM_ARN, "", {}, {**ALARM_REQUEST, "StateValue": "OK", "StateReason": "r"})


@pytest.mark.parametrize(("service", "operation"), SIMPLE_OPERATIONS)
def test_members_of_simple_requests_are_read(context: Context, service: str, operation: str) -> None:
    tuning: dict[str, Any] = {
        "HyperParameterTuningJobName": "t",
        "HyperParameterTuningJobConfig": {
            "HyperParameterTuningJobObjective": OBJECTIVE,
            "ParameterRanges": {},
        },
    }
    context.state.add("hyper-parameter-tuning-job", "t", "arn:t", "Completed", tuning, {})
    context.state.add("model", "m", "arn:m", "InService", {}, {})
    context.state.add("training-job", "trained", "arn:trained", "Completed", {}, {})
    add_version(context.state, "p", format_arn("pipeline/p"), 1, FAIL_DEFINITION, [])
    context.state.add("pipeline", "p", format_arn("pipeline/p"), "", {}, {})
    add_execution(context.state)
    context.state.queues.create("x")
    context.state.add(
        "inference-component", "x", "", "InService", {"Specification": {}}, {"RuntimeConfig": {"DesiredCopyCount": 1}}
    )
    context.state.add("scalable-target", make_target_name(SCALABLE_TARGET), "", "", {}, {"SuspendedState": {}})
    create_group(context, {"ModelPackageGroupName": "group"})
    context.state.add(
        "ecr-repository",
        "repository",
        REPOSITORY_ARN,
        "Active",
        {},
        {"repositoryName": "repository"},
    )
    iam = create_services(context, Registry(context))["iam"]
    iam["TagRole"]({"RoleName": "tagged", "Tags": [{"Key": "k", "Value": "v"}]})
    add_alarm(context.state)
    handler = create_services(context, Registry(context))[service][operation]
    requests = ALARM_REQUESTS.get(operation) if service == "cloudwatch" else None
    requests = requests or REQUESTS.get(operation, [make_minimal_request(service, operation)])
    assert list_unread_members(service, operation, handler, *requests) == set()


# --- Create and Update: jobs and endpoints also read members from the state ---

CLUSTER = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
TAGS = [{"Key": "k", "Value": "v"}]
PIPELINE_MEMBERS = {
    "PipelineDefinition": FAIL_DEFINITION,
    "RoleArn": ROLE_ARN,
    "ClientRequestToken": "t" * 32,
}
PARAMETER_RANGE = {"Name": "n", "MinValue": "1", "MaxValue": "9", "ScalingType": "Linear"}
PIPE_CHANNEL = {
    "ChannelName": "pipe",
    "DataSource": {
        "S3DataSource": {
            "S3DataType": "AugmentedManifestFile",
            "S3Uri": "s3://bucket/in/a",
            "AttributeNames": ["source-ref"],
        }
    },
    "RecordWrapperType": "RecordIO",
    "InputMode": "Pipe",
    "CompressionType": "None",
    "ContentType": "text/plain",
    "ShuffleConfig": {"Seed": 1},
}
FILE_CHANNEL = {
    "ChannelName": "files",
    "DataSource": {
        "S3DataSource": {
            "S3DataType": "S3Prefix",
            "S3Uri": "s3://bucket/in",
            "S3DataDistributionType": "ShardedByS3Key",
        }
    },
}
ALGORITHM = {
    "TrainingImage": "i",
    "TrainingInputMode": "File",
    "MetricDefinitions": [{"Name": "loss", "Regex": "loss: ([0-9.]+)"}],
}
JOB_DEFINITION = {
    "RoleArn": ROLE_ARN,
    "InputDataConfig": [PIPE_CHANNEL, FILE_CHANNEL],
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/out", "CompressionType": "GZIP"},
    "ResourceConfig": CLUSTER,
    "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
    "EnableNetworkIsolation": False,
    "EnableManagedSpotTraining": True,
    "TensorBoardOutputConfig": {"S3OutputPath": "s3://bucket/board", "LocalPath": str(Layout().tensorboard)},
    "CheckpointConfig": {"S3Uri": "s3://bucket/checkpoints", "LocalPath": str(Layout().checkpoints)},
    "RetryStrategy": {"MaximumRetryAttempts": 1},
    "Environment": {"A": "b"},
}
TUNING_CONFIG = {
    "Strategy": "Bayesian",
    "HyperParameterTuningJobObjective": OBJECTIVE,
    "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 1, "MaxRuntimeInSeconds": 60},
    "ParameterRanges": {
        "IntegerParameterRanges": [PARAMETER_RANGE],
        "ContinuousParameterRanges": [{**PARAMETER_RANGE, "Name": "c"}],
        "CategoricalParameterRanges": [{"Name": "k", "Values": ["a", "b"]}],
    },
    "TrainingJobEarlyStoppingType": "Auto",
    "TuningJobCompletionCriteria": {"TargetObjectiveMetricValue": 0.1},
    "RandomSeed": 1,
}
CONTAINER = {"Image": "i", "ModelDataUrl": "s3://bucket/in/a", "Environment": {"A": "b"}, "Mode": "SingleModel"}
MULTI_MODEL_CONTAINER = {
    "Image": "i",
    "ModelDataUrl": "s3://bucket/in/",
    "Mode": "MultiModel",
    "MultiModelConfig": {"ModelCacheSetting": "Enabled"},
}
MODEL_DATA_SOURCE = {"S3DataSource": {"S3Uri": "s3://bucket/in/", "S3DataType": "S3Prefix", "CompressionType": "None"}}
ADDITIONAL_SOURCES = {"AdditionalModelDataSources": [{"ChannelName": "draft", **MODEL_DATA_SOURCE}]}
VARIANT = {
    "VariantName": "v",
    "ModelName": "served",
    "InstanceType": "ml.m5.large",
    "InitialInstanceCount": 1,
    "InitialVariantWeight": 1.0,
    "ContainerStartupHealthCheckTimeoutInSeconds": 60,
}

RANDOM_ROUTING = {"RoutingConfig": {"RoutingStrategy": "RANDOM"}}
SHARED_VARIANT = {**{name: value for name, value in VARIANT.items() if name != "ModelName"}, **RANDOM_ROUTING}
"""A variant that inference components serve."""
SERVERLESS_VARIANT: dict[str, Any] = {
    "VariantName": "v",
    "ModelName": "served",
    "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 2, "ProvisionedConcurrency": 1},
}

HALF_CAPACITY = {"Type": "CAPACITY_PERCENT", "Value": 50}
ROLLING_POLICY = {
    "MaximumBatchSize": HALF_CAPACITY,
    "RollbackMaximumBatchSize": HALF_CAPACITY,
    "WaitIntervalInSeconds": 0,
    "MaximumExecutionTimeoutInSeconds": 600,
}
ROLLBACK_ON_ALARM = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "alarm"}]}}
DEPLOYMENT_CONFIGS: list[dict[str, Any]] = [
    {"RollingUpdatePolicy": ROLLING_POLICY, **ROLLBACK_ON_ALARM},
    *(
        {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": {
                    "Type": routing_type,
                    size_member: HALF_CAPACITY,
                    "WaitIntervalInSeconds": 0,
                },
                "TerminationWaitInSeconds": 0,
                "MaximumExecutionTimeoutInSeconds": 600,
            }
        }
        for routing_type, size_member in (("CANARY", "CanarySize"), ("LINEAR", "LinearStepSize"))
    ),
]

EXPERIMENT_CONFIG = {
    "ExperimentName": "experiment",
    "TrialName": "trial",
    "TrialComponentDisplayName": "d",
    "RunName": "r",
}
METADATA = dict.fromkeys(("CommitId", "Repository", "GeneratedBy", "ProjectId"), "x")
ARTIFACT_ARN = format_arn("artifact/a")
COMPONENT_SPECIFICATIONS: list[dict[str, Any]] = [
    {
        "ModelName": "served",
        "StartupParameters": {"ContainerStartupHealthCheckTimeoutInSeconds": 60},
        "ComputeResourceRequirements": {"NumberOfCpuCoresRequired": 1.0, "MaxMemoryRequiredInMb": 512},
    },
    {"Container": {"Image": "i", "ArtifactUrl": "s3://bucket/in/a", "Environment": {"A": "b"}}},
]

MLFLOW_SERVER = {
    "ArtifactStoreUri": "s3://bucket/mlflow",
    "RoleArn": ROLE_ARN,
    "TrackingServerSize": "Small",
    "AutomaticModelRegistration": True,
    "MlflowVersion": find_version(),
    "S3BucketOwnerAccountId": ACCOUNT,
    "S3BucketOwnerVerification": True,
}
MLFLOW_APP = {
    "ArtifactStoreUri": "s3://bucket/mlflow",
    "RoleArn": ROLE_ARN,
    "ModelRegistrationMode": "AutoModelRegistrationEnabled",
    "AccountDefaultStatus": "ENABLED",
}
MLFLOW_ANSWER = {"experiment_id": "1", "run": {"info": {"run_id": "r", "status": "RUNNING"}, "data": {}}}
"""An answer of MLflow to all requests."""
PRESIGNED_URL_MEMBERS = {"ExpiresInSeconds": 60, "SessionExpirationDurationInSeconds": 1800}

CREATE_AND_UPDATE_REQUESTS: Mapping[str, list[dict[str, Any]]] = {
    **{
        operation: [
            make_minimal_request("sagemaker", operation)
            | ({"Tags": TAGS} if "Tags" in TABLE["sagemaker"][operation] else {})
        ]
        for operation in (kind.operations["Create"] for kind in load_kinds() if kind.parent is None)
    },
    "CreateProcessingJob": [
        {
            "ProcessingJobName": "j",
            "ExperimentConfig": EXPERIMENT_CONFIG,
            "ProcessingInputs": [
                {
                    "InputName": "i",
                    "S3Input": {
                        "S3Uri": "s3://bucket/in",
                        "LocalPath": str(Layout().processing("in")),
                        "S3DataType": "S3Prefix",
                        "S3DataDistributionType": "FullyReplicated",
                    },
                }
            ],
            "ProcessingOutputConfig": {
                "Outputs": [
                    {
                        "OutputName": "o",
                        "S3Output": {
                            "S3Uri": "s3://bucket/out",
                            "LocalPath": str(Layout().processing("out")),
                            "S3UploadMode": "EndOfJob",
                        },
                    }
                ]
            },
            "ProcessingResources": {"ClusterConfig": CLUSTER},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
            "AppSpecification": {"ImageUri": "i", "ContainerEntrypoint": ["e"], "ContainerArguments": ["a"]},
            "Environment": {"A": "b"},
            "NetworkConfig": {"EnableNetworkIsolation": False},
            "RoleArn": ROLE_ARN,
            "Tags": TAGS,
        }
    ],
    "CreateTrainingJob": [
        {
            "TrainingJobName": "j",
            "ExperimentConfig": EXPERIMENT_CONFIG,
            **JOB_DEFINITION,
            "HyperParameters": {"a": "b"},
            "AlgorithmSpecification": {**ALGORITHM, "ContainerEntrypoint": ["e"], "ContainerArguments": ["a"]},
            "Tags": TAGS,
            "ModelPackageConfig": {"ModelPackageGroupArn": format_arn("model-package-group/group")},
        },
        {
            "TrainingJobName": "j",
            **JOB_DEFINITION,
            "AlgorithmSpecification": ALGORITHM,
            "MlflowConfig": {
                "MlflowResourceArn": format_arn("mlflow-tracking-server/mlflow"),
                "MlflowExperimentName": "e",
                "MlflowRunName": "r",
            },
        },
    ],
    "UpdateTrainingJob": [{"TrainingJobName": "trained"}],
    "CreateHyperParameterTuningJob": [
        {
            "HyperParameterTuningJobName": "j",
            "HyperParameterTuningJobConfig": TUNING_CONFIG | changes,
            "TrainingJobDefinition": {
                **{member: value for member, value in JOB_DEFINITION.items() if member != "ResourceConfig"},
                "StaticHyperParameters": {"a": "b"},
                "AlgorithmSpecification": ALGORITHM,
                **definition,
            },
            "WarmStartConfig": {
                "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "parent"}],
                "WarmStartType": "IdenticalDataAndAlgorithm",
            },
            "Tags": TAGS,
        }
        for changes, definition in (
            (
                {
                    "TuningJobCompletionCriteria": {
                        "BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 3}
                    }
                },
                {"ResourceConfig": CLUSTER},
            ),
            ({}, {"ResourceConfig": CLUSTER}),
            ({}, {"HyperParameterTuningResourceConfig": CLUSTER}),
            (
                {
                    "Strategy": "Hyperband",
                    "StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": 9}},
                    "TrainingJobEarlyStoppingType": "Off",
                },
                {"ResourceConfig": CLUSTER},
            ),
        )
    ],
    "CreateModel": [
        {"ModelName": "j", "PrimaryContainer": CONTAINER, "EnableNetworkIsolation": False, "Tags": TAGS},
        {"ModelName": "p", "PrimaryContainer": MULTI_MODEL_CONTAINER},
        {"ModelName": "q", "Containers": [MULTI_MODEL_CONTAINER]},
        {"ModelName": "k", "Containers": [CONTAINER], "InferenceExecutionConfig": {"Mode": "Serial"}},
        {
            "ModelName": "l",
            "PrimaryContainer": {"Image": "i", "ModelDataSource": MODEL_DATA_SOURCE, **ADDITIONAL_SOURCES},
        },
        {"ModelName": "m", "Containers": [{"Image": "i", "ModelDataSource": MODEL_DATA_SOURCE, **ADDITIONAL_SOURCES}]},
        {"ModelName": "n", "PrimaryContainer": {"ModelPackageName": "group/1", "InferenceSpecificationName": "Name"}},
        {"ModelName": "o", "Containers": [{"ModelPackageName": "group/1", "InferenceSpecificationName": "Name"}]},
    ],
    "CreateModelPackage": [
        make_package_request("CreateModelPackage"),
        {
            "ModelPackageName": "new",
            "InferenceSpecification": {
                "Containers": [{"Image": "i"}],
                "SupportedTransformInstanceTypes": ["ml.m5.large"],
                "SupportedRealtimeInferenceInstanceTypes": ["ml.m5.large"],
            },
            "Tags": TAGS,
        },
    ],
    "UpdateModelPackage": [make_package_request("UpdateModelPackage")],
    "CreateEndpointConfig": [
        {
            "EndpointConfigName": "j",
            "ProductionVariants": [VARIANT],
            "AsyncInferenceConfig": {
                "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 1},
                "OutputConfig": {
                    "S3OutputPath": "s3://bucket/out",
                    "S3FailurePath": "s3://bucket/failed",
                    "NotificationConfig": {
                        "SuccessTopic": "arn:aws:sns:us-east-1:000000000000:done",
                        "ErrorTopic": "arn:aws:sns:us-east-1:000000000000:bad",
                        "IncludeInferenceResponseIn": ["SUCCESS_NOTIFICATION_TOPIC", "ERROR_NOTIFICATION_TOPIC"],
                    },
                },
            },
            "Tags": TAGS,
        },
        {
            "EndpointConfigName": "j",
            "ProductionVariants": [VARIANT],
            "ShadowProductionVariants": [{**VARIANT, **RANDOM_ROUTING, "VariantName": "shadow"}],
            "DataCaptureConfig": {
                "EnableCapture": True,
                "InitialSamplingPercentage": 100,
                "DestinationS3Uri": "s3://bucket/captured",
                "CaptureOptions": [{"CaptureMode": "Input"}],
                "CaptureContentTypeHeader": {"CsvContentTypes": ["a/b"], "JsonContentTypes": ["c/d"]},
            },
        },
        {"EndpointConfigName": "j", "ProductionVariants": [SERVERLESS_VARIANT]},
        {"EndpointConfigName": "j", "ProductionVariants": [SHARED_VARIANT], "ExecutionRoleArn": ROLE_ARN},
    ],
    **{
        f"{verb}InferenceComponent": [
            {
                "InferenceComponentName": "component",
                "EndpointName": "shared",
                "VariantName": "v",
                "Specification": specification,
                "RuntimeConfig": {"CopyCount": 1},
                "Tags": TAGS,
                "DeploymentConfig": {"RollingUpdatePolicy": ROLLING_POLICY, **ROLLBACK_ON_ALARM},
            }
            for specification in COMPONENT_SPECIFICATIONS
        ]
        for verb in ("Create", "Update")
    },
    "UpdateInferenceComponentRuntimeConfig": [
        {"InferenceComponentName": "component", "DesiredRuntimeConfig": {"CopyCount": 1}}
    ],
    **{
        f"{verb}Experiment": [{"ExperimentName": "experiment", "DisplayName": "d", "Description": "d", "Tags": TAGS}]
        for verb in ("Create", "Update")
    },
    **{
        f"{verb}Trial": [
            {
                "TrialName": "trial",
                "DisplayName": "d",
                "ExperimentName": "experiment",
                "MetadataProperties": METADATA,
                "Tags": TAGS,
            }
        ]
        for verb in ("Create", "Update")
    },
    **{
        f"{verb}TrialComponent": [
            {
                "TrialComponentName": "part",
                "DisplayName": "d",
                "Status": {"PrimaryStatus": "Completed", "Message": "m"},
                "StartTime": 1,
                "EndTime": 2,
                "MetadataProperties": METADATA,
                "Tags": TAGS,
                **{name: {} for name in ("Parameters", "InputArtifacts", "OutputArtifacts")},
            }
        ]
        for verb in ("Create", "Update")
    },
    "CreateMlflowTrackingServer": [{**MLFLOW_SERVER, "TrackingServerName": "j", "Tags": TAGS}],
    "UpdateMlflowTrackingServer": [{**MLFLOW_SERVER, "TrackingServerName": "mlflow"}],
    "CreatePresignedMlflowTrackingServerUrl": [{**PRESIGNED_URL_MEMBERS, "TrackingServerName": "mlflow"}],
    "CreateMlflowApp": [{**MLFLOW_APP, "Name": "j", "Tags": TAGS}],
    "UpdateMlflowApp": [{**MLFLOW_APP, "Arn": format_arn("mlflow-app/mlflow")}],
    "CreatePresignedMlflowAppUrl": [{**PRESIGNED_URL_MEMBERS, "Arn": format_arn("mlflow-app/mlflow")}],
    "CreateArtifact": [
        {
            "ArtifactName": "a",
            "ArtifactType": "Model",
            "Source": ARTIFACT_SOURCE,
            "Properties": {},
            "MetadataProperties": METADATA,
            "Tags": TAGS,
        }
    ],
    "UpdateArtifact": [{"ArtifactArn": ARTIFACT_ARN, "ArtifactName": "b", "Properties": {}}],
    "CreateEndpoint": [
        {"EndpointName": "j", "EndpointConfigName": "config", "Tags": TAGS, "DeploymentConfig": config}
        for config in DEPLOYMENT_CONFIGS
    ],
    "UpdateEndpoint": [
        {
            "EndpointName": "e",
            "EndpointConfigName": "other",
            "RetainAllVariantProperties": True,
            "ExcludeRetainedVariantProperties": [{"VariantPropertyType": "DesiredWeight"}],
            "DeploymentConfig": config,
            "RetainDeploymentConfig": False,
        }
        for config in DEPLOYMENT_CONFIGS
    ],
    "UpdateEndpointWeightsAndCapacities": [
        {"EndpointName": "e", "DesiredWeightsAndCapacities": [{"VariantName": "v", "DesiredWeight": 2.0}]},
        {
            "EndpointName": "serverless",
            "DesiredWeightsAndCapacities": [
                {"VariantName": "v", "ServerlessUpdateConfig": SERVERLESS_VARIANT["ServerlessConfig"]}
            ],
        },
    ],
    "CreatePipeline": [
        {
            **PIPELINE_MEMBERS,
            "PipelineName": "p",
            "PipelineDisplayName": "d",
            "PipelineDescription": "d",
            "ParallelismConfiguration": {"MaxParallelExecutionSteps": 1},
            "PipelineVersionAliases": ["a"],
            "Tags": TAGS,
        },
        {"PipelineDefinitionS3Location": {"Bucket": "bucket", "ObjectKey": "in/a"}, "PipelineName": "p"},
    ],
    "UpdatePipeline": [
        {
            "PipelineName": "pipeline",
            "PipelineDefinition": PIPELINE_MEMBERS["PipelineDefinition"].replace("stop", "end"),
            "PipelineVersionAliases": ["a"],
            "ParallelismConfiguration": {"MaxParallelExecutionSteps": 1},
        },
        {"PipelineName": "pipeline", "PipelineDefinitionS3Location": {"Bucket": "bucket", "ObjectKey": "in/a"}},
    ],
    "UpdatePipelineVersion": [
        {
            "PipelineArn": format_arn("pipeline/pipeline"),
            "PipelineVersionId": 1,
            "PipelineVersionAliasOperations": {"Add": ["a"], "Remove": []},
        }
    ],
    "UpdatePipelineExecution": [
        {
            "PipelineExecutionArn": EXECUTION_ARN,
            "PipelineExecutionDisplayName": "d",
            "PipelineExecutionDescription": "d",
            "ParallelismConfiguration": {"MaxParallelExecutionSteps": 1},
        }
    ],
    "CreateTransformJob": [
        {
            "TransformJobName": "j",
            "ExperimentConfig": EXPERIMENT_CONFIG,
            "ModelName": "served",
            "MaxConcurrentTransforms": 1,
            "ModelClientConfig": {"InvocationsTimeoutInSeconds": 60, "InvocationsMaxRetries": 1},
            "MaxPayloadInMB": 1,
            "BatchStrategy": "SingleRecord",
            "Environment": {"A": "b"},
            "TransformInput": {
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/in"}},
                "ContentType": "application/jsonlines",
                "CompressionType": "None",
                "SplitType": "Line",
            },
            "TransformOutput": {
                "S3OutputPath": "s3://bucket/out",
                "Accept": "application/jsonlines",
                "AssembleWith": "Line",
            },
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
            "DataCaptureConfig": {"DestinationS3Uri": "s3://bucket/captured"},
            "DataProcessing": {"InputFilter": "$", "OutputFilter": "$", "JoinSource": "None"},
            "Tags": TAGS,
        }
    ],
}
"""Requests that together contain each honoured member."""

TRANSITIONAL_STATUSES = ("InProgress", "Stopping", "Creating", "Updating")
RUNNING_KINDS = [kind.arn_type for kind in load_kinds() if kind.lifecycle]


def wait_for_jobs_and_endpoints(context: Context) -> None:
    """Wait until all jobs have ended and all endpoints are in service."""
    deadline = time.monotonic() + 60
    while any(context.state.find_in_statuses(kind, TRANSITIONAL_STATUSES) for kind in RUNNING_KINDS):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def handlers(context: Context) -> Iterator[Service]:
    """SageMaker's operations, with the resources that the requests of CREATE_AND_UPDATE_REQUESTS name."""
    registry = Registry(context)
    sagemaker_handlers = create_services(context, registry)["sagemaker"]
    sagemaker_handlers["CreateModelPackageGroup"]({"ModelPackageGroupName": "group"})
    sagemaker_handlers["CreateModelPackage"]({**make_package_request("CreateModelPackage"), "ClientToken": "first"})
    sagemaker_handlers["CreateModel"]({"ModelName": "served", "PrimaryContainer": {"Image": "i"}})
    for name in ("config", "other"):
        sagemaker_handlers["CreateEndpointConfig"]({"EndpointConfigName": name, "ProductionVariants": [VARIANT]})
    sagemaker_handlers["CreateEndpoint"]({"EndpointName": "e", "EndpointConfigName": "config"})
    sagemaker_handlers["CreateEndpointConfig"](
        {"EndpointConfigName": "serverless", "ProductionVariants": [SERVERLESS_VARIANT]}
    )
    sagemaker_handlers["CreateEndpoint"]({"EndpointName": "serverless", "EndpointConfigName": "serverless"})
    sagemaker_handlers["CreateEndpointConfig"](
        {
            "EndpointConfigName": "shared",
            "ProductionVariants": [SHARED_VARIANT],
            "ExecutionRoleArn": ROLE_ARN,
        }
    )
    sagemaker_handlers["CreateEndpoint"]({"EndpointName": "shared", "EndpointConfigName": "shared"})
    component = {"InferenceComponentName": "component", "EndpointName": "shared", "VariantName": "v"}
    specification, copies = {"ModelName": "served"}, {"CopyCount": 1}
    sagemaker_handlers["CreateInferenceComponent"](
        {**component, "Specification": specification, "RuntimeConfig": copies}
    )
    sagemaker_handlers["CreateMlflowTrackingServer"]({**MLFLOW_SERVER, "TrackingServerName": "mlflow"})
    sagemaker_handlers["CreateMlflowApp"]({**MLFLOW_APP, "Name": "mlflow"})
    sagemaker_handlers["CreateExperiment"]({"ExperimentName": "experiment"})
    sagemaker_handlers["CreateTrial"]({"TrialName": "trial", "ExperimentName": "experiment"})
    sagemaker_handlers["CreateTrialComponent"]({"TrialComponentName": "part"})
    context.state.add("artifact", "a", ARTIFACT_ARN, "", {}, {"Source": ARTIFACT_SOURCE, "ArtifactType": "Model"})
    sagemaker_handlers["CreatePipeline"]({**PIPELINE_MEMBERS, "PipelineName": "pipeline"})
    add_execution(context.state)
    add_alarm(context.state)
    parent = CREATE_AND_UPDATE_REQUESTS["CreateHyperParameterTuningJob"][0] | {"HyperParameterTuningJobName": "parent"}
    context.state.add("hyper-parameter-tuning-job", "parent", "arn:p", "Completed", parent, {})
    sagemaker_handlers["CreateTrainingJob"](
        CREATE_AND_UPDATE_REQUESTS["CreateTrainingJob"][0] | {"TrainingJobName": "trained"}
    )
    wait_for_jobs_and_endpoints(context)
    yield sagemaker_handlers
    registry.shut_down()


REQUESTS_THAT_USE_RESOURCES: Mapping[str, list[tuple[str, dict[str, Any]]]] = {
    "CreateModel": [
        (
            "CreateEndpointConfig",
            {"EndpointConfigName": "of-{}", "ProductionVariants": [{**VARIANT, "ModelName": "{}"}]},
        ),
        ("CreateEndpoint", {"EndpointName": "of-{}", "EndpointConfigName": "of-{}"}),
    ],
    "CreateEndpointConfig": [("CreateEndpoint", {"EndpointName": "of-{}", "EndpointConfigName": "{}"})],
}
"""Requests that use a created resource; `{}` stands for its name."""


@pytest.mark.parametrize("operation", CREATE_AND_UPDATE_REQUESTS)
def test_members_of_create_and_update_requests_are_read(
    context: Context, handlers: Service, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    read_paths: set[str] = set()

    def load(text: str, **options: Any) -> Recorder:
        return Recorder(json.loads(text, **options), read_paths)

    recording_json = SimpleNamespace(dumps=json.dumps, loads=load)
    monkeypatch.setattr(state, "json", recording_json)
    monkeypatch.setattr(State, "add", _make_recording_add(State.add))
    monkeypatch.setattr(rest_client, "call_api", lambda *_: MLFLOW_ANSWER)
    name = f"{operation.removeprefix('Create')}Name"
    for number, request in enumerate(CREATE_AND_UPDATE_REQUESTS[operation]):
        unique_request = request | ({name: f"n{number}"} if name in request else {})
        with suppress(ValidationError) if operation.endswith("Pipeline") else nullcontext():
            handlers[operation](Recorder(unique_request, read_paths))
        for using_operation, members in REQUESTS_THAT_USE_RESOURCES.get(operation, []):
            handlers[using_operation](json.loads(json.dumps(members).replace("{}", f"n{number}")))
        wait_for_jobs_and_endpoints(context)
    assert {
        path for path in list_honoured_members(TABLE["sagemaker"][operation]) if not _is_read(path, read_paths)
    } <= {name}


REPLACEMENTS_IN_COPIES = {
    "TrainingJobDefinition.": "",
    "HyperParameterTuningResource": "Resource",
    "ShadowProductionVariants.": "Deployment.Shadows.",
    "ProductionVariants.": "Deployment.Variants.",
    "DesiredWeightsAndCapacities.ServerlessUpdateConfig.": "NextDeployment.Variants.ServerlessConfig.",
}
"""Parts of the paths of members, and what they are replaced with in the copy of the request that the code reads."""


def _is_read(path: str, read_paths: set[str]) -> bool:
    copied_path = path
    for source, copy in REPLACEMENTS_IN_COPIES.items():
        copied_path = copied_path.replace(source, copy)
    return any(f".{read_path}".endswith((f".{path}", f".{copied_path}")) for read_path in read_paths)


def _make_recording_add(add: Callable[..., object]) -> Callable[..., object]:
    """Return a replacement of `State.add`. It returns the record as read from the database, so that the request in the
    record is a `Recorder`."""

    def add_and_read(self: State, kind: str, name: str, *arguments: Any, **options: Any) -> object:
        add(self, kind, name, *arguments, **options)
        return self.get(kind, name, options.get("version", 0))

    return add_and_read


def test_each_operation_has_a_request() -> None:
    assert {
        operation for service, operation in SIMPLE_OPERATIONS if service == "sagemaker"
    } | CREATE_AND_UPDATE_REQUESTS.keys() == set(TABLE["sagemaker"])


# --- S3 ---

READ_EARLIER = re.compile(
    "Content(Length|MD5)|Checksum([A-Z0-9]+|Algorithm)|Expected(Source)?BucketOwner|Body|Bucket|Key|ACL"
)
"""Matches members that are read before the operation, or from the headers while the body is read: `tests/local/s3`
tests them. It also matches ACL, because all honoured values of ACL have the same meaning."""

S3_MEMBERS: Mapping[str, Any] = {
    "Delete": {"Objects": [{"Key": "in/a"}]},
    "Tagging": {"TagSet": TAGS},
    "ObjectAttributes": ["ETag"],
    "CopySource": "bucket/in/a",
    "MetadataDirective": "REPLACE",
    "TaggingDirective": "REPLACE",
    "UploadId": "",
    "PartNumber": 1,
    "MaxKeys": 10,
    "ServerSideEncryptionConfiguration": {},
    "PublicAccessBlockConfiguration": {},
    "OwnershipControls": {},
    "VersioningConfiguration": {},
    "CreateBucketConfiguration": {"LocationConstraint": "us-east-1"},
}


@pytest.mark.parametrize("operation", S3_OPERATIONS)
def test_members_of_s3_requests_are_read(context: Context, operation: str) -> None:
    uploads = Uploads(context.store)
    upload = uploads.create("bucket", "in/a", "CRC32", Details())
    shape = load_operation_model("s3", operation).input_shape
    members = {name: S3_MEMBERS[name] for name in (shape.members if shape else ()) if name in S3_MEMBERS}
    if operation in ("PutObject", "CopyObject", "CreateMultipartUpload"):
        members["Tagging"] = "k=v"
    members |= {"UploadId": upload.id} if "UploadId" in members else {}
    bucket = "new-bucket" if operation == "CreateBucket" else "bucket"
    members |= {"Bucket": bucket, "Key": "in/a"}
    if operation == "PutBucketPolicy":
        members["Policy"] = "{}"

    def run(recorder: Mapping[str, Any], name: str = operation) -> None:
        body = Body({"content-length": "0"}, BytesIO())
        result = S3_OPERATIONS[name](Call(context.store, uploads, "us-east-1", recorder, body))
        if isinstance(result.body, FileBody):
            result.body.close()

    if operation == "CompleteMultipartUpload":
        run(members | {"PartNumber": 1}, "UploadPart")
        members["MultipartUpload"] = {"Parts": [{"PartNumber": 1, "ETag": md5(b"").hexdigest()}]}  # noqa: S324

    unread_members = list_unread_members("s3", operation, run, members, {"Range": "bytes=0-0"} | members)
    assert {path for path in unread_members if not READ_EARLIER.fullmatch(path.rpartition(".")[2])} == set()
