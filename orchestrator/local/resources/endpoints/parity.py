"""Parity rows of endpoints and their configurations."""

from collections.abc import Mapping
from dataclasses import replace

from microjobs_orchestrator.local.parity.common import INSTANCE_TYPE, KMS, TAGS, VPC
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Rows

ONE_CONTAINER = NoEffect("one container serves a variant")
ALARMS = Members({"Alarms": Refused("there are no CloudWatch alarms that could cause a rollback: remove the member")})
AT_ONCE = NoEffect("an update starts the new containers, moves all requests at once and drains the old ones")
DEPLOYMENT = Members(
    {"BlueGreenUpdatePolicy": AT_ONCE, "RollingUpdatePolicy": AT_ONCE, "AutoRollbackConfiguration": ALARMS}
)
ROUTING: Rows = {
    "RoutingStrategy": Honoured(
        "the choice of a copy of an inference component; without it, the copy with the fewest present requests",
        values=("LEAST_OUTSTANDING_REQUESTS", "RANDOM"),
        reason="prompts are not compared",
    ),
    "PrefixAwareRoutingConfig": Refused("prompts are not compared"),
}
SERVERLESS: Rows = {
    "MemorySizeInMB": Honoured("the memory limit of the container; the runtime `process` does not limit memory"),
    "MaxConcurrency": Honoured("further requests get the error ThrottlingException, with status 429"),
    "ProvisionedConcurrency": Honoured("the container is not stopped when it is idle"),
}
VARIANT: Rows = {
    "VariantName": Honoured(),
    "ModelName": Honoured("without it, inference components serve the variant"),
    "InitialInstanceCount": ONE_CONTAINER,
    "InstanceType": replace(INSTANCE_TYPE, required=False),
    "InstancePools": Refused("a variant has one instance type: set InstanceType"),
    "VariantInstanceProvisionTimeoutInSeconds": NoEffect("there are no instances to wait for"),
    "InitialVariantWeight": Honoured("the share of the requests"),
    "AcceleratorType": Refused("Elastic Inference is not available: choose a GPU type"),
    "CoreDumpConfig": Refused("configure core dumps in the engine"),
    "ServerlessConfig": Members(SERVERLESS),
    "VolumeSizeInGB": Honoured("the space for the extracted models of a multi-model container, by default 30 GB"),
    "ModelDataDownloadTimeoutInSeconds": Honoured("seconds in which the model data must be extracted"),
    "ContainerStartupHealthCheckTimeoutInSeconds": Honoured("seconds until `/ping` must answer 200"),
    "EnableSSMAccess": Refused("use the engine: docker exec into the endpoint's container"),
    "ManagedInstanceScaling": ONE_CONTAINER,
    "RoutingConfig": Members(ROUTING),
    "InferenceAmiVersion": NoEffect("hosts run on this machine"),
    "CapacityReservationConfig": NoEffect("there is no capacity to reserve"),
    "AcceleratorPartitionLayouts": Refused("GPUs are not divided"),
}

SHADOW: Rows = {
    **VARIANT,
    "ServerlessConfig": Refused("shadow variants have instances, as on AWS"),
    "RoutingConfig": ONE_CONTAINER,
    "InitialVariantWeight": Honoured("the share of the requests that are copied, relative to the production variant"),
}

CAPTURE: Rows = {
    "EnableCapture": Honoured("true by default, as on AWS"),
    "InitialSamplingPercentage": Honoured("the share of the exchanges that is captured"),
    "DestinationS3Uri": Honoured(
        "objects `<endpoint>/<variant>/yyyy/mm/dd/hh/<id>.jsonl`, after 5 seconds; below `<variant>/<component>` for "
        "inference components"
    ),
    "KmsKeyId": KMS,
    "CaptureOptions": Members({"CaptureMode": Honoured()}),
    "CaptureContentTypeHeader": Members(
        dict.fromkeys(("CsvContentTypes", "JsonContentTypes"), Honoured("text; all other content is in base64"))
    ),
}

TOPIC = Honoured("messages go to the targets of `[[local.events]]` with this topic")

ASYNC: Rows = {
    "ClientConfig": Members(
        {"MaxConcurrentInvocationsPerInstance": Honoured("per endpoint, by default 4; further requests wait")}
    ),
    "OutputConfig": Members(
        {
            "KmsKeyId": KMS,
            "S3OutputPath": Honoured("results, one file `<id>.out` per request", required=True),
            "NotificationConfig": Members(
                {
                    "SuccessTopic": TOPIC,
                    "ErrorTopic": TOPIC,
                    "IncludeInferenceResponseIn": Honoured("responses of at most 128 KB, as text"),
                }
            ),
            "S3FailurePath": Honoured("files `<id>-error.out` with the model's error, or the reason of the failure"),
        }
    ),
}

CREATE_CONFIG: Rows = {
    "EndpointConfigName": Honoured(),
    "ProductionVariants": Members(VARIANT),
    "DataCaptureConfig": Members(CAPTURE),
    "Tags": TAGS,
    "KmsKeyId": KMS,
    "AsyncInferenceConfig": Members(ASYNC),
    "ExplainerConfig": Refused("Clarify is not available"),
    "ShadowProductionVariants": Members(SHADOW),
    "ExecutionRoleArn": Honoured("required for inference components; permissions are not checked"),
    "VpcConfig": VPC,
    "EnableNetworkIsolation": Honoured("of inference components with a container; models have their own setting"),
    "MetricsConfig": NoEffect("metrics are recorded each second; the container's own metrics are not collected"),
    "CrossRegionTrafficConfig": Refused("there is one region"),
}

ROWS: Mapping[str, Rows] = {
    "CreateEndpointConfig": CREATE_CONFIG,
    "CreateEndpoint": {
        "EndpointName": Honoured(),
        "EndpointConfigName": Honoured(),
        "DeploymentConfig": DEPLOYMENT,
        "Tags": TAGS,
    },
    "UpdateEndpoint": {
        "EndpointName": Honoured(),
        "EndpointConfigName": Honoured(),
        "RetainAllVariantProperties": Honoured("the counts and weights of variants that both configurations have"),
        "ExcludeRetainedVariantProperties": Members({"VariantPropertyType": Honoured()}),
        "DeploymentConfig": DEPLOYMENT,
        "RetainDeploymentConfig": AT_ONCE,
    },
    "UpdateEndpointWeightsAndCapacities": {
        "EndpointName": Honoured(),
        "DesiredWeightsAndCapacities": Members(
            {
                "VariantName": Honoured(),
                "DesiredWeight": Honoured("the share of the requests"),
                "DesiredInstanceCount": ONE_CONTAINER,
                "ServerlessUpdateConfig": Members(
                    {name: SERVERLESS[name] for name in ("MaxConcurrency", "ProvisionedConcurrency")}
                ),
            }
        ),
    },
}
