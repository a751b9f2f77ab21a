"""The kind of training jobs."""

from microjobs_orchestrator.local.kinds import AwsMembers, JobStatus, Kind, Lifecycle, LogNames

LOG_GROUP = "/aws/sagemaker/TrainingJobs"

SECONDARY_STATUSES = (
    "Starting",
    "Pending",
    "LaunchingMLInstances",
    "PreparingTrainingStack",
    "Downloading",
    "DownloadingTrainingImage",
    "Training",
    "Uploading",
    "Updating",
    "Restarting",
    "Interrupted",
    "MaxRuntimeExceeded",
    "MaxWaitTimeExceeded",
)

TRAINING_JOB = Kind(
    arn_type="training-job",
    noun="TrainingJob",
    title="training",
    lifecycle=Lifecycle(
        end_member="TrainingEndTime", statuses=(*JobStatus, "Deleting"), secondary_statuses=SECONDARY_STATUSES
    ),
    logs=LogNames(LOG_GROUP),
    filters_pages=True,
    aws=AwsMembers(
        instances="ResourceConfig",
        network="VpcConfig",
        output_kms_key="OutputDataConfig.KmsKeyId",
        volume_kms_key="ResourceConfig.VolumeKmsKeyId",
        has_spot=True,
    ),
)
