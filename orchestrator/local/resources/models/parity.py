"""Parity rows of models."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity.common import ACCESS, ENVIRONMENT, HUB, ISOLATION, ROLE, TAGS, VPC
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Rows

PACKAGE = Refused("there is no model registry: set Image and ModelDataUrl")

MODEL_SOURCE: Rows = {
    "S3DataSource": Members(
        {
            "S3Uri": Honoured(),
            "S3DataType": Honoured("one archive, or the files below a prefix"),
            "CompressionType": Honoured("extracted, or used unchanged"),
            "ModelAccessConfig": ACCESS,
            "HubAccessConfig": HUB,
            "ManifestS3Uri": Refused("store the files below one prefix"),
            "ETag": Refused("the present objects of the bucket are used"),
            "ManifestEtag": Refused("the present objects of the bucket are used"),
        }
    )
}

CONTAINER: Rows = {
    "ContainerHostname": NoEffect("there is one container"),
    "Image": Honoured("an image of the engine; the configuration may define aliases", required=True),
    "ImageConfig": NoEffect("the engine uses its own logins"),
    "Mode": Honoured("one model", values=("SingleModel",), reason="create one endpoint per model"),
    "ModelDataUrl": Honoured("a `.tar.gz`, extracted before the container starts"),
    "ModelDataSource": Members(MODEL_SOURCE),
    "AdditionalModelDataSources": Refused("put all files into one model archive"),
    "Environment": ENVIRONMENT,
    "ModelPackageName": PACKAGE,
    "InferenceSpecificationName": PACKAGE,
    "MultiModelConfig": Refused("create one endpoint per model"),
    "ContainerMetricsConfig": NoEffect("metrics are not collected; request them from the container"),
}

CREATE: Rows = {
    "ModelName": Honoured(),
    "PrimaryContainer": Members(CONTAINER),
    "Containers": Members(
        CONTAINER, maximum=1, reason="there are no inference pipelines: put the steps into one image"
    ),
    "InferenceExecutionConfig": NoEffect("there is one container"),
    "ExecutionRoleArn": ROLE,
    "Tags": TAGS,
    "VpcConfig": VPC,
    "EnableNetworkIsolation": ISOLATION,
}

ROWS: Mapping[str, Rows] = {"CreateModel": CREATE}
