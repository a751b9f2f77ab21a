"""Parity rows of batch transform jobs."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity.common import (
    ENVIRONMENT,
    EXPERIMENT,
    INSTANCE_TYPE,
    KMS,
    ONE_MACHINE_REASON,
    S3_PREFIX,
    TAGS,
)
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Rows

CREATE: Rows = {
    "TransformJobName": Honoured(),
    "ModelName": Honoured(),
    "MaxConcurrentTransforms": Honoured("parallel requests"),
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
            "S3OutputPath": Honoured(
                "an output has the path of its input below the input's `S3Uri`, with the suffix `.out`"
            ),
            "Accept": Honoured(),
            "AssembleWith": Honoured(),
            "KmsKeyId": KMS,
        }
    ),
    "DataCaptureConfig": Members(
        {
            "DestinationS3Uri": Honoured("manifests of the inputs and the outputs, when the job has completed"),
            "KmsKeyId": KMS,
            "GenerateInferenceId": Refused("outputs get no ids: join them with the inputs (JoinSource)"),
        }
    ),
    "TransformResources": Members(
        {
            "InstanceType": INSTANCE_TYPE,
            "InstanceCount": Honoured(
                "each instance has its own containers, and transforms a share of the objects",
                maximum=100,
                reason=ONE_MACHINE_REASON,
            ),
            "VolumeKmsKeyId": KMS,
            "TransformAmiVersion": NoEffect("hosts run on this machine"),
        }
    ),
    "DataProcessing": Members(
        {
            "InputFilter": Honoured("the part of JSONPath that AWS supports; `[a:b]` excludes `b`"),
            "OutputFilter": Honoured("the part of JSONPath that AWS supports; `[a:b]` excludes `b`"),
            "JoinSource": Honoured("for CSV, JSON and JSON Lines"),
        }
    ),
    "Tags": TAGS,
    "ExperimentConfig": EXPERIMENT,
}

ROWS: Mapping[str, Rows] = {"CreateTransformJob": CREATE}
