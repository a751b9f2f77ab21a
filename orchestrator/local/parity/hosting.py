"""Models, endpoints and batch transform."""

from microjobs_orchestrator.local.parity.common import (
    ACCESS,
    ENVIRONMENT,
    EXPERIMENT,
    HUB,
    INSTANCE_TYPE,
    ISOLATION,
    KMS,
    ONE_MACHINE,
    ROLE,
    S3_PREFIX,
    TAGS,
    VOLUME,
    VPC,
)
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoMeaning, Refused, Rows

PACKAGE = Refused("there is no model registry: give Image and ModelDataUrl")
ONE_CONTAINER = NoMeaning("one container serves a variant")
DEPLOYMENT = NoMeaning("an update starts the new containers, moves all requests at once and drains the old ones")
MODEL_SOURCE: Rows = {
    "S3DataSource": Members(
        {
            "S3Uri": Honoured(),
            "S3DataType": Honoured("one archive, or the files below a prefix"),
            "CompressionType": Honoured("extracted, or taken as they are"),
            "ModelAccessConfig": ACCESS,
            "HubAccessConfig": HUB,
            "ManifestS3Uri": Refused("put the files under one prefix"),
            "ETag": Refused("the bucket's present objects are taken"),
            "ManifestEtag": Refused("the bucket's present objects are taken"),
        }
    )
}

CONTAINER: Rows = {
    "ContainerHostname": NoMeaning("there is one container"),
    "Image": Honoured("an image of the engine, after the aliases of the configuration", needed=True),
    "ImageConfig": NoMeaning("the engine's own logins are used"),
    "Mode": Honoured("one model", only=("SingleModel",), why="make a model and an endpoint for each"),
    "ModelDataUrl": Honoured("a `.tar.gz`, extracted before the container starts"),
    "ModelDataSource": Members(MODEL_SOURCE),
    "AdditionalModelDataSources": Refused("put all files into one model archive"),
    "Environment": ENVIRONMENT,
    "ModelPackageName": PACKAGE,
    "InferenceSpecificationName": PACKAGE,
    "MultiModelConfig": Refused("make a model and an endpoint for each"),
    "ContainerMetricsConfig": NoMeaning("nobody collects metrics; ask the container itself"),
}

CREATE_MODEL: Rows = {
    "ModelName": Honoured(),
    "PrimaryContainer": Members(CONTAINER),
    "Containers": Members(CONTAINER, most=1, why="inference pipelines are not run: put the steps into one image"),
    "InferenceExecutionConfig": NoMeaning("there is one container"),
    "ExecutionRoleArn": ROLE,
    "Tags": TAGS,
    "VpcConfig": VPC,
    "EnableNetworkIsolation": ISOLATION,
}

VARIANT: Rows = {
    "VariantName": Honoured(),
    "ModelName": Honoured(needed=True),
    "InitialInstanceCount": ONE_CONTAINER,
    "InstanceType": INSTANCE_TYPE,
    "InstancePools": Refused("one instance type: give InstanceType"),
    "VariantInstanceProvisionTimeoutInSeconds": NoMeaning("there are no instances to wait for"),
    "InitialVariantWeight": Honoured("the share of the requests"),
    "AcceleratorType": Refused("there is no Elastic Inference: choose a GPU type"),
    "CoreDumpConfig": Refused("set it up in the engine"),
    "ServerlessConfig": Refused("give InstanceType and InitialInstanceCount"),
    "VolumeSizeInGB": VOLUME,
    "ModelDataDownloadTimeoutInSeconds": NoMeaning("nothing is downloaded"),
    "ContainerStartupHealthCheckTimeoutInSeconds": Honoured("how long `/ping` may take to answer 200"),
    "EnableSSMAccess": Refused("use the engine: docker exec into the endpoint's container"),
    "ManagedInstanceScaling": ONE_CONTAINER,
    "RoutingConfig": ONE_CONTAINER,
    "InferenceAmiVersion": NoMeaning("the machine is this one"),
    "CapacityReservationConfig": NoMeaning("there is no capacity to reserve"),
    "AcceleratorPartitionLayouts": Refused("GPUs are not divided"),
}

NOT_CAPTURED = NoMeaning("nothing is captured")

NO_TOPICS = Refused("there is no SNS: look for the output's object, or the failure's")

ASYNC: Rows = {
    "ClientConfig": Members(
        {"MaxConcurrentInvocationsPerInstance": Honoured("of the endpoint, 4 if it is not said; the others wait")}
    ),
    "OutputConfig": Members(
        {
            "KmsKeyId": KMS,
            "S3OutputPath": Honoured("answers, each `.out` of a name of its own", needed=True),
            "NotificationConfig": Members(
                {"SuccessTopic": NO_TOPICS, "ErrorTopic": NO_TOPICS, "IncludeInferenceResponseIn": NO_TOPICS}
            ),
            "S3FailurePath": Honoured("`-error.out`: the model's error, or why there is none"),
        }
    ),
}

CREATE_ENDPOINT_CONFIG: Rows = {
    "EndpointConfigName": Honoured(),
    "ProductionVariants": Members(VARIANT),
    "DataCaptureConfig": Members(
        {
            # AWS captures if it is not told.
            "EnableCapture": Honoured("nothing is captured", only=(False,), why="log in the container", needed=True),
            "InitialSamplingPercentage": NOT_CAPTURED,
            "DestinationS3Uri": NOT_CAPTURED,
            "KmsKeyId": NOT_CAPTURED,
            "CaptureOptions": NOT_CAPTURED,
            "CaptureContentTypeHeader": NOT_CAPTURED,
        }
    ),
    "Tags": TAGS,
    "KmsKeyId": KMS,
    "AsyncInferenceConfig": Members(ASYNC),
    "ExplainerConfig": Refused("there is no Clarify"),
    "ShadowProductionVariants": Refused("make a second endpoint, and send it the requests too"),
    "ExecutionRoleArn": ROLE,
    "VpcConfig": VPC,
    "EnableNetworkIsolation": Refused("it is for inference components: set it in CreateModel"),
    "MetricsConfig": NoMeaning("nobody collects metrics; ask the container itself"),
    "CrossRegionTrafficConfig": Refused("there is one region"),
}

CREATE_ENDPOINT: Rows = {
    "EndpointName": Honoured(),
    "EndpointConfigName": Honoured(),
    "DeploymentConfig": DEPLOYMENT,
    "Tags": TAGS,
}

UPDATE_ENDPOINT: Rows = {
    "EndpointName": Honoured(),
    "EndpointConfigName": Honoured(),
    "RetainAllVariantProperties": Honoured("the counts and weights of variants that both have"),
    "ExcludeRetainedVariantProperties": Members({"VariantPropertyType": Honoured()}),
    "DeploymentConfig": DEPLOYMENT,
    "RetainDeploymentConfig": DEPLOYMENT,
}

UPDATE_WEIGHTS: Rows = {
    "EndpointName": Honoured(),
    "DesiredWeightsAndCapacities": Members(
        {
            "VariantName": Honoured(),
            "DesiredWeight": Honoured("the share of the requests"),
            "DesiredInstanceCount": ONE_CONTAINER,
            "ServerlessUpdateConfig": Refused("variants have instances"),
        }
    ),
}

CREATE_TRANSFORM_JOB: Rows = {
    "TransformJobName": Honoured(),
    "ModelName": Honoured(),
    "MaxConcurrentTransforms": Honoured("requests at once"),
    "ModelClientConfig": Members({"InvocationsTimeoutInSeconds": Honoured(), "InvocationsMaxRetries": Honoured()}),
    "MaxPayloadInMB": Honoured(),
    "BatchStrategy": Honoured(),
    "Environment": ENVIRONMENT,
    "TransformInput": Members(
        {
            "DataSource": Members({"S3DataSource": Members({"S3DataType": S3_PREFIX, "S3Uri": Honoured()})}),
            "ContentType": Honoured(),
            "CompressionType": Honoured("objects are decompressed; outputs are not compressed"),
            "SplitType": Honoured("whole objects, lines, or the records of RecordIO and TFRecord"),
        }
    ),
    "TransformOutput": Members(
        {
            "S3OutputPath": Honoured("`.out` is added to an input's name"),
            "Accept": Honoured(),
            "AssembleWith": Honoured(),
            "KmsKeyId": KMS,
        }
    ),
    "DataCaptureConfig": Refused("inputs and outputs are in their buckets already"),
    "TransformResources": Members(
        {
            "InstanceType": INSTANCE_TYPE,
            "InstanceCount": Honoured("as many containers, which share the objects", most=100, why=ONE_MACHINE),
            "VolumeKmsKeyId": KMS,
            "TransformAmiVersion": NoMeaning("the machine is this one"),
        }
    ),
    "DataProcessing": Members(
        {
            "InputFilter": Honoured("AWS's part of JSONPath; `[a:b]` ends before `b`"),
            "OutputFilter": Honoured("AWS's part of JSONPath; `[a:b]` ends before `b`"),
            "JoinSource": Honoured("of CSV, JSON and JSON lines"),
        }
    ),
    "Tags": TAGS,
    "ExperimentConfig": EXPERIMENT,
}
