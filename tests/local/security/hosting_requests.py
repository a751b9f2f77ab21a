"""Endpoints of each kind on a stub server, and strategies for requests to them."""

import tarfile
from collections.abc import Mapping
from functools import partial
from typing import Any

from hypothesis import strategies as st

from tests.local.clients import LocalServer
from tests.local.security.requests import NAMES, Request, json_requests, rest_requests
from tests.local.security.shapes import unusual_texts
from tests.polling import wait_until

ROLE = "arn:aws:iam::000000000000:role/microjobs"
IMAGE = "nobody/nothing:0"
INSTANCE_MEMBERS = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
VARIANT = {"VariantName": "v", "ModelName": "plain", **INSTANCE_MEMBERS}
COMPONENT_MEMBERS = {
    "EndpointName": "components",
    "VariantName": "v",
    "Specification": {"ModelName": "plain", "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 128}},
    "RuntimeConfig": {"CopyCount": 1},
}
CAPTURE_CONFIG = {
    "EnableCapture": True,
    "InitialSamplingPercentage": 100,
    "DestinationS3Uri": "s3://fuzz/captured",
    "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"]},
}

MODELS: Mapping[str, Any] = {
    "plain": {"PrimaryContainer": {"Image": IMAGE, "Environment": {"A": "b"}}, "ExecutionRoleArn": ROLE},
    "many": {
        "PrimaryContainer": {
            "Image": IMAGE,
            "Mode": "MultiModel",
            "ModelDataUrl": "s3://fuzz/many/",
            "MultiModelConfig": {"ModelCacheSetting": "Disabled"},
        },
        "ExecutionRoleArn": ROLE,
    },
    "direct": {
        "Containers": [{"Image": IMAGE, "ContainerHostname": name} for name in ("first", "second")],
        "InferenceExecutionConfig": {"Mode": "Direct"},
        "ExecutionRoleArn": ROLE,
    },
}
CONFIGS: Mapping[str, Any] = {
    "plain": {"ProductionVariants": [VARIANT]},
    "many": {"ProductionVariants": [{**VARIANT, "ModelName": "many", "VolumeSizeInGB": 1}]},
    "direct": {"ProductionVariants": [{**VARIANT, "ModelName": "direct"}]},
    "components": {"ProductionVariants": [{"VariantName": "v", **INSTANCE_MEMBERS}], "ExecutionRoleArn": ROLE},
    "serverless": {
        "ProductionVariants": [
            {
                "VariantName": "v",
                "ModelName": "plain",
                "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 2, "ProvisionedConcurrency": 1},
            }
        ]
    },
    "captured": {
        "ProductionVariants": [VARIANT],
        "ShadowProductionVariants": [{**VARIANT, "VariantName": "shadow", "InitialVariantWeight": 0.5}],
        "DataCaptureConfig": CAPTURE_CONFIG,
    },
    "asynchronous": {
        "ProductionVariants": [VARIANT],
        "AsyncInferenceConfig": {
            "OutputConfig": {
                "S3OutputPath": "s3://fuzz/answers",
                "NotificationConfig": {"SuccessTopic": "arn:aws:sns:us-east-1:000000000000:done"},
            },
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2},
        },
    },
}
"""One configuration per kind of hosting. `create_endpoints` creates an endpoint with the name of each configuration."""
UPDATE_MEMBERS: Mapping[str, Any] = {
    "UpdateEndpoint": {
        "EndpointConfigName": "captured",
        "RetainAllVariantProperties": True,
        "ExcludeRetainedVariantProperties": [{"VariantPropertyType": "DataCaptureConfig"}],
        "RetainDeploymentConfig": True,
    },
    "UpdateEndpointWeightsAndCapacities": {
        "DesiredWeightsAndCapacities": [
            {"VariantName": "v", "DesiredWeight": 0.5, "ServerlessUpdateConfig": {"MaxConcurrency": 3}}
        ]
    },
}
TRANSFORM_MEMBERS = {
    "ModelName": "plain",
    "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://fuzz/in"}}},
    "TransformOutput": {"S3OutputPath": "s3://fuzz/out"},
    "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    "DataCaptureConfig": {"DestinationS3Uri": "s3://fuzz/captured", "GenerateInferenceId": False},
}

UTF8_TEXTS = unusual_texts.map(lambda text: text.encode(errors="replace").decode())
TARGET_MEMBERS: Mapping[str, tuple[str, st.SearchStrategy[Any]]] = {
    "many": ("TargetModel", st.sampled_from([*["one.tar.gz"] * 9, "absent.tar.gz", "../one.tar.gz", "a//b", "é"])),
    "direct": ("TargetContainerHostname", st.sampled_from([*["first", "second"] * 4, "absent", "FIRST"])),
    "components": ("InferenceComponentName", st.sampled_from([*["component"] * 9, "absent"])),
}
"""The member that selects the target of a request, and its values, by endpoint."""
RARE_VALUES = st.sampled_from([None] * 19 + ["x"])
RARE_MEMBERS = {
    "EnableExplanations": st.sampled_from([None] * 19 + ["`true`"]),
    **dict.fromkeys((*(member for member, _ in TARGET_MEMBERS.values()), "TargetVariant", "SessionId"), RARE_VALUES),
}
"""Members of InvokeEndpoint that most endpoints refuse, and their values. Most values are None, so few requests
have these members."""
INVOCATION_MEMBERS: Mapping[str, st.SearchStrategy[Any]] = {
    "EndpointName": NAMES | UTF8_TEXTS.filter(bool),
    "CustomAttributes": st.sampled_from(["a=b", "x" * 1024]),
    "InputLocation": st.sampled_from(["s3://fuzz/in/a.csv", "s3://absent/x", "s3://fuzz/../x"]),
    "Body": st.binary(max_size=200) | st.sampled_from([b"fail", b"cut", b"1,2,3"]),
}
INVOKE_OPERATIONS = (*["InvokeEndpoint"] * 3, *["InvokeEndpointWithResponseStream"] * 2)


def create_endpoints(server: LocalServer) -> None:
    """Create an endpoint of each kind, and wait until all of them serve."""
    client, describe = server.sagemaker, server.sagemaker.describe_endpoint
    archive = server.home.buckets / "fuzz" / "many" / "one.tar.gz"
    archive.parent.mkdir()
    tarfile.open(archive, "w:gz").close()
    for name, members in MODELS.items():
        client.create_model(ModelName=name, **members)
    for name, members in CONFIGS.items():
        client.create_endpoint_config(EndpointConfigName=name, **members)
        client.create_endpoint(EndpointName=name, EndpointConfigName=name)
    client.create_inference_component(InferenceComponentName="component", **COMPONENT_MEMBERS)
    for name in CONFIGS:
        wait_until(partial(describe, EndpointName=name), lambda endpoint: endpoint["EndpointStatus"] == "InService")
    wait_until(
        partial(client.describe_inference_component, InferenceComponentName="component"),
        lambda component: component["InferenceComponentStatus"] == "InService",
    )


def resource_requests() -> st.SearchStrategy[Request]:
    """Return requests that create, update and delete the resources of each kind of hosting, and requests for transform
    jobs."""
    common = {"CreateTransformJob": TRANSFORM_MEMBERS, "DeleteEndpoint": {}, **UPDATE_MEMBERS}
    models = (json_requests("sagemaker", ["CreateModel"], {"CreateModel": model}) for model in MODELS.values())
    endpoints = (
        json_requests("sagemaker", [*members_by_operation, *UPDATE_MEMBERS], members_by_operation)
        for name, config in CONFIGS.items()
        for members_by_operation in [
            {"CreateEndpointConfig": config, "CreateEndpoint": {"EndpointConfigName": name}, **common}
        ]
    )
    return st.one_of(*models, *endpoints)


def invocations() -> st.SearchStrategy[Request]:
    """Return requests to the endpoint of each kind, and to endpoints that do not exist."""
    asynchronous_operations, members = ["InvokeEndpointAsync"], {**INVOCATION_MEMBERS, **RARE_MEMBERS}
    strategies = [
        rest_requests("sagemaker-runtime", [*INVOKE_OPERATIONS, *asynchronous_operations], INVOCATION_MEMBERS)
    ]
    for name, config in CONFIGS.items():
        operations = asynchronous_operations if "AsyncInferenceConfig" in config else [*INVOKE_OPERATIONS]
        endpoint_members = {**members, "EndpointName": st.just(name)}
        if name in TARGET_MEMBERS:
            member, values = TARGET_MEMBERS[name]
            endpoint_members[member] = st.one_of(*[values] * 8, RARE_VALUES, UTF8_TEXTS)
        strategies.append(
            rest_requests("sagemaker-runtime", operations, endpoint_members, always_drawn_names=RARE_MEMBERS)
        )
    return st.one_of(*strategies)
