"""CreateProcessingJob."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity.common import (
    ARGUMENTS,
    DISTRIBUTION,
    ENTRYPOINT,
    ENVIRONMENT,
    EXPERIMENT,
    HOSTS,
    INSTANCE_TYPE,
    ISOLATION,
    KMS,
    ONE_TYPE,
    ROLE,
    STOPPING,
    TAGS,
    TRAFFIC,
    VOLUME,
    VPC,
)
from microjobs_orchestrator.local.parity.rows import Honoured, Members, Refused, Rows

APP_MANAGED = Refused("only AWS's own processing applications move their files themselves")

INPUT: Rows = {
    "S3Uri": Honoured("objects whose keys begin so"),
    "LocalPath": Honoured("the folder of the input's files", required=True),
    "S3DataType": Honoured("objects whose keys begin so, or those of a manifest"),
    "S3InputMode": Honoured(
        "files are there before the container starts",
        values=("File",),
        reason="AWS does not document what the pipes are called: use File",
    ),
    "S3DataDistributionType": DISTRIBUTION,
    "S3CompressionType": Honoured(
        "files as they are", values=("None",), reason="Gzip is for Pipe mode: unpack them in the job"
    ),
}

OUTPUT: Rows = {
    "S3Uri": Honoured(
        "several hosts' files are merged; of two with one name the first host's is taken, and the log says so"
    ),
    "LocalPath": Honoured(required=True),
    "S3UploadMode": Honoured("at the end, or while the job runs as well"),
}

CREATE: Rows = {
    "ProcessingInputs": Members(
        {
            "InputName": Honoured(),
            "AppManaged": APP_MANAGED,
            "S3Input": Members(INPUT, required=True),
            "DatasetDefinition": Refused("there is no Athena or Redshift: put the data into a bucket"),
        }
    ),
    "ProcessingOutputConfig": Members(
        {
            "Outputs": Members(
                {
                    "OutputName": Honoured(),
                    "S3Output": Members(OUTPUT, required=True),
                    "FeatureStoreOutput": Refused("there is no feature store: use S3Output"),
                    "AppManaged": APP_MANAGED,
                }
            ),
            "KmsKeyId": KMS,
        }
    ),
    "ProcessingJobName": Honoured(),
    "ProcessingResources": Members(
        {
            "ClusterConfig": Members(
                {
                    "InstanceCount": HOSTS,
                    "InstanceType": INSTANCE_TYPE,
                    "VolumeSizeInGB": VOLUME,
                    "VolumeKmsKeyId": KMS,
                    "InstancePreferences": ONE_TYPE,
                    "SelectedInstanceType": ONE_TYPE,
                    "SelectedInstanceCount": ONE_TYPE,
                }
            )
        }
    ),
    "StoppingCondition": Members({"MaxRuntimeInSeconds": STOPPING["MaxRuntimeInSeconds"]}),
    "AppSpecification": Members(
        {
            "ImageUri": Honoured("an image of the engine, after the aliases of the configuration"),
            "ContainerEntrypoint": ENTRYPOINT,
            "ContainerArguments": ARGUMENTS,
        }
    ),
    "Environment": ENVIRONMENT,
    "NetworkConfig": Members(
        {
            "EnableInterContainerTrafficEncryption": TRAFFIC,
            "EnableNetworkIsolation": ISOLATION,
            "VpcConfig": VPC,
        }
    ),
    "RoleArn": ROLE,
    "Tags": TAGS,
    "ExperimentConfig": EXPERIMENT,
}

ROWS: Mapping[str, Rows] = {"CreateProcessingJob": CREATE}
