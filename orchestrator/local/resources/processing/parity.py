"""Parity rows of processing jobs."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity import common
from microjobs_orchestrator.local.parity.common import make_honoured_rows
from microjobs_orchestrator.local.parity.rows import Honoured, Members, Refused, Rows

APP_MANAGED = Refused("supported only by AWS's own processing applications, which transfer their files themselves")

INPUT: Rows = {
    "S3Uri": Honoured("objects with this key prefix"),
    "LocalPath": Honoured("the folder of the input's files", required=True),
    "S3DataType": Honoured("objects with a key prefix, or those of a manifest"),
    "S3InputMode": Honoured(
        "files exist before the container starts",
        values=("File",),
        reason="AWS does not document the names of the pipes: use File",
    ),
    "S3DataDistributionType": common.DISTRIBUTION,
    "S3CompressionType": Honoured(
        "files without changes", values=("None",), reason="Gzip is for Pipe mode: decompress the files in the job"
    ),
}

OUTPUT: Rows = {
    "S3Uri": Honoured(
        "the files of all hosts; if several hosts write a file with the same name, the first host's file is used, and "
        "the log reports this"
    ),
    "LocalPath": Honoured(required=True),
    "S3UploadMode": Honoured("EndOfJob: uploaded at the end; Continuous: uploaded while the job runs and at the end"),
}

CREATE: Rows = {
    "ProcessingInputs": Members(
        {
            "InputName": Honoured(),
            "AppManaged": APP_MANAGED,
            "S3Input": Members(INPUT, required=True),
            "DatasetDefinition": Refused("Athena and Redshift are not supported: put the data into a bucket"),
        }
    ),
    "ProcessingOutputConfig": Members(
        {
            "Outputs": Members(
                {
                    "OutputName": Honoured(),
                    "S3Output": Members(OUTPUT, required=True),
                    "FeatureStoreOutput": Refused("feature stores are not supported: use S3Output"),
                    "AppManaged": APP_MANAGED,
                }
            ),
            "KmsKeyId": common.KMS,
        }
    ),
    "ProcessingResources": Members({"ClusterConfig": Members({**common.CLUSTER, **common.PREFERENCES})}),
    "StoppingCondition": Members({"MaxRuntimeInSeconds": common.STOPPING_CONDITION["MaxRuntimeInSeconds"]}),
    "AppSpecification": Members(
        {
            "ImageUri": Honoured("an image of the engine; the configuration may define aliases"),
            **common.COMMAND,
        }
    ),
    **make_honoured_rows("ProcessingJobName"),
    "Environment": common.ENVIRONMENT,
    "NetworkConfig": Members(common.NETWORK),
    "RoleArn": common.ROLE,
    "Tags": common.TAGS,
    "ExperimentConfig": common.EXPERIMENT,
}

ROWS: Mapping[str, Rows] = {"CreateProcessingJob": CREATE}
