"""Parity rows of endpoints and their configurations."""

from collections.abc import Mapping
from dataclasses import replace

from microjobs_orchestrator.local.parity.common import INSTANCE_TYPE, KMS, TAGS, VPC
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Rows

INSTANCES = Honoured("the number of instances that run, at most the setting `max_instances`")
ALARMS = Members({"Alarms": Members({"AlarmName": Honoured("an alarm in the state ALARM rolls the update back")})})
SIZE = Members(
    {
        "Type": Honoured(),
        "Value": Honoured(
            "a number or a percentage of the largest variant's instances or copies; a value outside of AWS's limits is "
            "refused"
        ),
    }
)
WAIT = Honoured("`deployment_speed` shortens it")
ROLLING = Members(
    {
        "MaximumBatchSize": SIZE,
        "WaitIntervalInSeconds": WAIT,
        "MaximumExecutionTimeoutInSeconds": WAIT,
        "RollbackMaximumBatchSize": SIZE,
    }
)
BLUE_GREEN = Members(
    {
        "TrafficRoutingConfiguration": Members(
            {"Type": Honoured(), "WaitIntervalInSeconds": WAIT, "CanarySize": SIZE, "LinearStepSize": SIZE}
        ),
        "TerminationWaitInSeconds": WAIT,
        "MaximumExecutionTimeoutInSeconds": WAIT,
    }
)
DEPLOYMENT = Members(
    {"BlueGreenUpdatePolicy": BLUE_GREEN, "RollingUpdatePolicy": ROLLING, "AutoRollbackConfiguration": ALARMS}
)
ROUTING: Rows = {
    "RoutingStrategy": Honoured(
        "the choice of an instance, or of a copy of an inference component; by default, the replica with the fewest "
        "requests in progress is chosen",
        values=("LEAST_OUTSTANDING_REQUESTS", "RANDOM"),
        reason="prompts are not compared",
    ),
    "PrefixAwareRoutingConfig": Refused("prompts are not compared"),
}
SERVERLESS: Rows = {
    "MemorySizeInMB": Honoured("the memory limit of the container; the runtime `process` does not limit memory"),
    "MaxConcurrency": Honoured("requests beyond this number get the error ThrottlingException, with status 429"),
    "ProvisionedConcurrency": Honoured("the container is not stopped when it is idle"),
}
VARIANT: Rows = {
    "VariantName": Honoured(),
    "ModelName": Honoured("without it, inference components serve the variant"),
    "InitialInstanceCount": INSTANCES,
    "InstanceType": replace(INSTANCE_TYPE, required=False),
    "InstancePools": Refused("a variant has one instance type: set InstanceType"),
    "VariantInstanceProvisionTimeoutInSeconds": NoEffect(
        "containers start on this machine, so no instance is provisioned"
    ),
    "InitialVariantWeight": Honoured("the share of the requests"),
    "AcceleratorType": Refused("Elastic Inference is not available: choose a GPU type"),
    "CoreDumpConfig": Refused("configure core dumps in the engine"),
    "ServerlessConfig": Members(SERVERLESS),
    "VolumeSizeInGB": Honoured("the space for the extracted models of a multi-model container, by default 30 GB"),
    "ModelDataDownloadTimeoutInSeconds": Honoured("seconds in which the model data must be extracted"),
    "ContainerStartupHealthCheckTimeoutInSeconds": Honoured("seconds until `/ping` must answer 200"),
    "EnableSSMAccess": Refused("use the engine: docker exec into the endpoint's container"),
    "ManagedInstanceScaling": NoEffect("all copies of inference components run on this one machine"),
    "RoutingConfig": Members(ROUTING),
    "InferenceAmiVersion": NoEffect("hosts run on this machine"),
    "CapacityReservationConfig": NoEffect("there is no capacity to reserve"),
    "AcceleratorPartitionLayouts": Refused("GPUs are not divided"),
}

SHADOW: Rows = {
    **VARIANT,
    "ServerlessConfig": Refused("shadow variants have instances, as on AWS"),
    "InitialVariantWeight": Honoured(
        "this weight, divided by the weight of the production variant, is the share of the requests that are copied"
    ),
}

CAPTURE: Rows = {
    "EnableCapture": Honoured("true by default, as on AWS"),
    "InitialSamplingPercentage": Honoured("the share of the exchanges that is captured"),
    "DestinationS3Uri": Honoured(
        "objects `<endpoint>/<variant>/yyyy/mm/dd/hh/<id>.jsonl`, each stored 5 seconds after its first exchange; "
        "for inference components, `<variant>/<component>` replaces `<variant>`"
    ),
    "KmsKeyId": KMS,
    "CaptureOptions": Members({"CaptureMode": Honoured()}),
    "CaptureContentTypeHeader": Members(
        dict.fromkeys(
            ("CsvContentTypes", "JsonContentTypes"),
            Honoured("content of these types is stored as text, all other content in base64"),
        )
    ),
}

TOPIC = Honoured("messages go to the targets of `[[local.events]]` with this topic")

ASYNC: Rows = {
    "ClientConfig": Members(
        {"MaxConcurrentInvocationsPerInstance": Honoured("by default 4; requests beyond this number wait")}
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
    "EnableNetworkIsolation": Honoured(
        "isolates inference components that are created with a Container; a component that is created with a ModelName "
        "has the setting of its model"
    ),
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
        "RetainAllVariantProperties": Honoured(
            "keeps the counts and weights of the variants that both configurations have"
        ),
        "ExcludeRetainedVariantProperties": Members({"VariantPropertyType": Honoured()}),
        "DeploymentConfig": DEPLOYMENT,
        "RetainDeploymentConfig": Honoured("uses the steps of the last update again"),
    },
    "UpdateEndpointWeightsAndCapacities": {
        "EndpointName": Honoured(),
        "DesiredWeightsAndCapacities": Members(
            {
                "VariantName": Honoured(),
                "DesiredWeight": Honoured("the share of the requests"),
                "DesiredInstanceCount": INSTANCES,
                "ServerlessUpdateConfig": Members(
                    {name: SERVERLESS[name] for name in ("MaxConcurrency", "ProvisionedConcurrency")}
                ),
            }
        ),
    },
}
