"""Requests that create resources, with as many members as the SDKs' classes can express."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from microjobs.contract import Layout
from microjobs_orchestrator.local.kinds import Kind
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT, ENDPOINT_CONFIG
from microjobs_orchestrator.local.resources.experiments.kinds import EXPERIMENT, TRIAL, TRIAL_COMPONENT
from microjobs_orchestrator.local.resources.inference_components.kinds import INFERENCE_COMPONENT
from microjobs_orchestrator.local.resources.model_registry.kinds import MODEL_PACKAGE, MODEL_PACKAGE_GROUP
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.pipelines.kinds import PIPELINE, PIPELINE_EXECUTION
from microjobs_orchestrator.local.resources.processing.kinds import PROCESSING_JOB
from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB
from microjobs_orchestrator.local.resources.transform.kinds import TRANSFORM_JOB
from microjobs_orchestrator.local.resources.tuning.kinds import TUNING_JOB
from tests.conftest import make_image_name
from tests.local.clients import LocalServer

Request = dict[str, Any]

KMS_KEY = "arn:aws:kms:us-east-1:000000000000:key/11111111-2222-3333-4444-555555555555"
TAGS = [{"Key": "team", "Value": "a:b @ é/c=d"}]
VPC = {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
TEXT = 'it\'s "quoted" \\ $HOME é 😀\nEND\n'
"""A text with special characters: shells and Python change it unless it is quoted."""
LINE = TEXT.splitlines()[0]
METRICS = [{"Name": "loss", "Regex": 'loss="?([0-9.]+)\\s'}]
INSTANCE_MEMBERS = {"InstanceType": "ml.m5.large", "InstanceCount": 1}
INSTANCES_WITH_VOLUMES = {**INSTANCE_MEMBERS, "VolumeSizeInGB": 7, "VolumeKmsKeyId": KMS_KEY}
CHECKPOINTS = str(Layout().root / "checkpoints-here")
SPOT = {
    "EnableManagedSpotTraining": True,
    "CheckpointConfig": {"S3Uri": "s3://fuzz/checkpoints", "LocalPath": CHECKPOINTS},
}

MANIFEST = "manifest.jsonl"


def put_manifest(server: LocalServer) -> None:
    """Store the manifest that the channels of the requests name."""
    server.s3.put_object(Bucket="fuzz", Key=MANIFEST, Body=b'{"source": "a"}\n')


def _make_channel(**members: Any) -> Request:
    source = {
        "S3DataType": "AugmentedManifestFile",
        "S3Uri": f"s3://fuzz/{MANIFEST}",
        "S3DataDistributionType": "ShardedByS3Key",
        "AttributeNames": ["source"],
    }
    return {
        "ChannelName": "train",
        "DataSource": {"S3DataSource": source},
        "ContentType": "text/csv",
        "CompressionType": "None",
        "RecordWrapperType": "RecordIO",
        "InputMode": "Pipe",
        "ShuffleConfig": {"Seed": 3},
        **members,
    }


def _make_job_members(server: LocalServer, instances_member: str) -> Request:
    """Return the members that training jobs and definitions of tuning jobs share.

    Args:
        server: the server whose role the request names.
        instances_member: the name of the member with the type and the number of instances.
    """
    return {
        "RoleArn": server.address.role_arn,
        "OutputDataConfig": {"S3OutputPath": "s3://fuzz/out", "KmsKeyId": KMS_KEY, "CompressionType": "NONE"},
        instances_member: INSTANCES_WITH_VOLUMES,
        "StoppingCondition": {"MaxRuntimeInSeconds": 50, "MaxWaitTimeInSeconds": 60},
        "Environment": {"TEXT": TEXT},
        "RetryStrategy": {"MaximumRetryAttempts": 2},
        "VpcConfig": VPC,
        "EnableNetworkIsolation": True,
        "EnableInterContainerTrafficEncryption": True,
        **SPOT,
    }


def make_training(server: LocalServer, name: str) -> Request:
    job_members = _make_job_members(server, "ResourceConfig")
    return {
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": make_image_name("serve"),
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["sh", "-c"],
            "ContainerArguments": [LINE],
            "MetricDefinitions": METRICS,
            "EnableSageMakerMetricsTimeSeries": True,
        },
        "HyperParameters": {"rate": "0.10", "text": LINE},
        "InputDataConfig": [_make_channel(), _make_channel(ChannelName="test")],
        **job_members,
        "ResourceConfig": {**job_members["ResourceConfig"], "KeepAlivePeriodInSeconds": 9},
        "TensorBoardOutputConfig": {
            "S3OutputPath": "s3://fuzz/tensorboard",
            "LocalPath": str(Layout().output / "tensorboard"),
        },
        "ExperimentConfig": {"TrialComponentDisplayName": "shown"},
        "ProfilerConfig": {"DisableProfiler": True},
        "Tags": TAGS,
    }


def make_processing(server: LocalServer, name: str) -> Request:
    source, target = (str(Layout().processing(folder)) for folder in ("input", "output"))
    s3_input = {
        "S3Uri": "s3://fuzz/in",
        "LocalPath": source,
        "S3DataType": "S3Prefix",
        "S3InputMode": "File",
        "S3DataDistributionType": "ShardedByS3Key",
        "S3CompressionType": "None",
    }
    s3_output = {"S3Uri": "s3://fuzz/out", "LocalPath": target, "S3UploadMode": "Continuous"}
    return {
        "ProcessingJobName": name,
        "ProcessingInputs": [{"InputName": "in", "AppManaged": False, "S3Input": s3_input}],
        "ProcessingOutputConfig": {
            "KmsKeyId": KMS_KEY,
            "Outputs": [{"OutputName": "out", "AppManaged": False, "S3Output": s3_output}],
        },
        "ProcessingResources": {"ClusterConfig": INSTANCES_WITH_VOLUMES},
        "AppSpecification": {
            "ImageUri": make_image_name("serve"),
            "ContainerEntrypoint": ["sh"],
            "ContainerArguments": ["-c", LINE],
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 50},
        "Environment": {"TEXT": TEXT},
        "NetworkConfig": {
            "EnableNetworkIsolation": True,
            "EnableInterContainerTrafficEncryption": True,
            "VpcConfig": VPC,
        },
        "RoleArn": server.address.role_arn,
        "ExperimentConfig": {"TrialComponentDisplayName": "shown"},
        "Tags": TAGS,
    }


def make_transform(server: LocalServer, name: str) -> Request:  # noqa: ARG001
    return {
        "TransformJobName": name,
        "ModelName": TRANSFORM_MODEL,
        "BatchStrategy": "SingleRecord",
        "MaxConcurrentTransforms": 2,
        "MaxPayloadInMB": 3,
        "Environment": {"TEXT": "a'b"},
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://fuzz/in/a.csv"}},
            "ContentType": "text/csv",
            "CompressionType": "None",
            "SplitType": "Line",
        },
        "TransformOutput": {
            "S3OutputPath": "s3://fuzz/out",
            "KmsKeyId": KMS_KEY,
            "AssembleWith": "Line",
            "Accept": "text/csv",
        },
        "TransformResources": {**INSTANCE_MEMBERS, "VolumeKmsKeyId": KMS_KEY},
        "DataProcessing": {"InputFilter": "$[0:]", "OutputFilter": "$", "JoinSource": "None"},
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": 20, "InvocationsMaxRetries": 1},
        "ExperimentConfig": {"TrialComponentDisplayName": "shown"},
        "Tags": TAGS,
    }


def make_tuning(server: LocalServer, name: str) -> Request:
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Hyperband",
            "StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": 4}},
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {
                "MaxNumberOfTrainingJobs": 1,
                "MaxParallelTrainingJobs": 1,
                "MaxRuntimeInSeconds": 200,
            },
            "ParameterRanges": {
                "CategoricalParameterRanges": [{"Name": "kind", "Values": ["relu", "a'b"]}],
                "ContinuousParameterRanges": [
                    {"Name": "rate", "MinValue": "0.001", "MaxValue": "0.5", "ScalingType": "Logarithmic"}
                ],
                "IntegerParameterRanges": [
                    {"Name": "epochs", "MinValue": "1", "MaxValue": "9", "ScalingType": "Linear"}
                ],
            },
            "TrainingJobEarlyStoppingType": "Off",
            "RandomSeed": 5,
        },
        "TrainingJobDefinition": {
            **_make_job_members(server, "HyperParameterTuningResourceConfig"),
            "AlgorithmSpecification": {
                "TrainingImage": make_image_name("serve"),
                "TrainingInputMode": "File",
                "MetricDefinitions": METRICS,
            },
            "StaticHyperParameters": {"seed": "1"},
            "InputDataConfig": [_make_channel()],
        },
        "Tags": TAGS,
    }


TRANSFORM_MODEL = "transform-model"
"""The name of the model of the transform job."""


def make_model(server: LocalServer, name: str) -> Request:
    return {
        "ModelName": name,
        "Containers": [
            {"Image": make_image_name("serve"), "Environment": {"TEXT": TEXT}, "ContainerHostname": "first"}
        ],
        "ExecutionRoleArn": server.address.role_arn,
        "VpcConfig": VPC,
        "EnableNetworkIsolation": True,
        "Tags": TAGS,
    }


def make_endpoint_config(server: LocalServer, name: str) -> Request:
    """Create a model, and return the request for a configuration with the same name."""
    server.sagemaker.create_model(**make_model(server, name))
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 50,
        "DestinationS3Uri": "s3://fuzz/capture",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    return {
        "EndpointConfigName": name,
        "ProductionVariants": [
            {"VariantName": "blue", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
        ],
        "DataCaptureConfig": capture,
        "KmsKeyId": KMS_KEY,
        "Tags": TAGS,
    }


def make_asynchronous_config(server: LocalServer, name: str) -> Request:
    request = make_endpoint_config(server, name)
    del request["DataCaptureConfig"]
    return {**request, "AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://fuzz/async"}}}


def make_endpoint(server: LocalServer, name: str) -> Request:
    """Create a model and a configuration, and return the request for an endpoint with the same name."""
    server.sagemaker.create_endpoint_config(**make_endpoint_config(server, name))
    return {"EndpointName": name, "EndpointConfigName": name, "Tags": TAGS}


def make_pipeline(server: LocalServer, name: str) -> Request:
    step = {"Name": "stop", "Type": "Fail", "Arguments": {"ErrorMessage": TEXT}}
    parameter = {"Name": "rate", "Type": "Float", "DefaultValue": 1e-05}
    definition = {"Version": "2020-12-01", "Parameters": [parameter], "Steps": [step], "Metadata": {"a": [True, None]}}
    return {
        "PipelineName": name,
        "PipelineDefinition": json.dumps(definition),
        "PipelineDescription": LINE,
        "RoleArn": server.address.role_arn,
        "ParallelismConfiguration": {"MaxParallelExecutionSteps": 2},
        "Tags": TAGS,
    }


def make_package(server: LocalServer, name: str) -> Request:  # noqa: ARG001
    specification = {
        "Containers": [{"Image": make_image_name("serve"), "ModelDataUrl": "s3://fuzz/in/a.csv"}],
        "SupportedContentTypes": ["text/csv"],
        "SupportedResponseMIMETypes": ["text/csv"],
        "SupportedTransformInstanceTypes": ["ml.m5.large"],
        "SupportedRealtimeInferenceInstanceTypes": ["ml.m5.large"],
    }
    return {
        "ModelPackageName": name,
        "ModelPackageDescription": "a package",
        "InferenceSpecification": specification,
        "CustomerMetadataProperties": {"mse": "0.5"},
        "Tags": TAGS,
    }


REQUEST_VARIANTS: Sequence[tuple[Kind, Callable[[LocalServer, str], Request]]] = (
    (TRAINING_JOB, make_training),
    (PROCESSING_JOB, make_processing),
    (TRANSFORM_JOB, make_transform),
    (TUNING_JOB, make_tuning),
    (MODEL, make_model),
    (ENDPOINT_CONFIG, make_endpoint_config),
    (ENDPOINT_CONFIG, make_asynchronous_config),
    (ENDPOINT, make_endpoint),
    (PIPELINE, make_pipeline),
    (MODEL_PACKAGE, make_package),
)
"""Pairs of a kind and a function that returns a Create request for it. The function takes the server and the name of
the new resource, and creates the resources that the request needs."""

KINDS_WITH_PREREQUISITES: Sequence[Sequence[Kind]] = (
    (TRAINING_JOB,),
    (PROCESSING_JOB,),
    (MODEL, TRANSFORM_JOB),
    (TUNING_JOB,),
    (MODEL, ENDPOINT_CONFIG, ENDPOINT),
    (MODEL, INFERENCE_COMPONENT),
    (PIPELINE, PIPELINE_EXECUTION),
    (MODEL_PACKAGE_GROUP,),
    (MODEL_PACKAGE,),
    (EXPERIMENT, TRIAL),
    (TRIAL_COMPONENT,),
)
"""Kinds whose examples are created together. In each row, the last kind requires the other kinds."""
