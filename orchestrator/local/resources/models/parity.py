"""Parity rows of models."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity.common import (
    ENVIRONMENT,
    HUB,
    MODEL_ACCESS,
    NETWORK_ISOLATION,
    ROLE,
    TAGS,
    VPC,
)
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Rows
from microjobs_orchestrator.local.resources.models.serving import ADDITIONAL_DATA_FOLDER

MODEL_SOURCE: Rows = {
    "S3DataSource": Members(
        {
            "S3Uri": Honoured(),
            "S3DataType": Honoured("one archive, or the files below a prefix"),
            "CompressionType": Honoured("extracted, or used unchanged"),
            "ModelAccessConfig": MODEL_ACCESS,
            "HubAccessConfig": HUB,
            "ManifestS3Uri": Refused("store the files below one prefix"),
            "ETag": Honoured(
                "model data with another ETag is refused; for a prefix: a digest of all objects, as in model packages"
            ),
            "ManifestEtag": Refused("store the files below one prefix"),
        }
    )
}

CONTAINER: Rows = {
    "ContainerHostname": Honoured("the name in logs, errors and TargetContainerHostname; default `container-<n>`"),
    "Image": Honoured("an image of the engine; the configuration may define aliases"),
    "ImageConfig": NoEffect("the engine uses its own logins"),
    "Mode": Honoured(
        "SingleModel: one model; MultiModel: the models that requests name. At most one container may have MultiModel, "
        "and Mode of InferenceExecutionConfig must not be Direct"
    ),
    "ModelDataUrl": Honoured(
        "a `.tar.gz`, extracted before the container starts; with Mode MultiModel, the prefix of the models"
    ),
    "ModelDataSource": Members(MODEL_SOURCE),
    "AdditionalModelDataSources": Members(
        {"ChannelName": Honoured(f"the data is in `{ADDITIONAL_DATA_FOLDER}/<name>`"), **MODEL_SOURCE}
    ),
    "Environment": ENVIRONMENT,
    "ModelPackageName": Honoured("a package of the model registry; a version must be Approved"),
    "InferenceSpecificationName": Honoured("an additional inference specification of the package"),
    "MultiModelConfig": Members({"ModelCacheSetting": Honoured("models are unloaded after each request, or kept")}),
    "ContainerMetricsConfig": NoEffect("metrics are not collected; request them from the container"),
}

CREATE: Rows = {
    "ModelName": Honoured(),
    "PrimaryContainer": Members(CONTAINER),
    "Containers": Members(CONTAINER),
    "InferenceExecutionConfig": Members(
        {"Mode": Honoured("each request goes to all containers, or to the container that it names")}
    ),
    "ExecutionRoleArn": ROLE,
    "Tags": TAGS,
    "VpcConfig": VPC,
    "EnableNetworkIsolation": NETWORK_ISOLATION,
}

ROWS: Mapping[str, Rows] = {"CreateModel": CREATE}
