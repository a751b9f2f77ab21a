"""Parity rows of batch transform jobs."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity.common import (
    ENVIRONMENT,
    EXPERIMENT,
    INSTANCE_TYPE,
    KMS,
    ONE_MACHINE,
    S3_PREFIX,
    TAGS,
)
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Rows

CREATE: Rows = {
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
            "InstanceCount": Honoured("as many containers, which share the objects", maximum=100, reason=ONE_MACHINE),
            "VolumeKmsKeyId": KMS,
            "TransformAmiVersion": NoEffect("the machine is this one"),
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

ROWS: Mapping[str, Rows] = {"CreateTransformJob": CREATE}
