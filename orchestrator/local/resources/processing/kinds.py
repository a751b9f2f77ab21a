"""The kind of processing jobs."""

from microjobs_orchestrator.local.kinds import AwsMembers, Kind, Lifecycle, LogNames

PROCESSING_JOB = Kind(
    arn_type="processing-job",
    noun="ProcessingJob",
    title="processing",
    lifecycle=Lifecycle(end_member="ProcessingEndTime"),
    logs=LogNames("/aws/sagemaker/ProcessingJobs"),
    aws=AwsMembers(
        instances="ProcessingResources.ClusterConfig",
        network="NetworkConfig.VpcConfig",
        output_kms_key="ProcessingOutputConfig.KmsKeyId",
        volume_kms_key="ProcessingResources.ClusterConfig.VolumeKmsKeyId",
    ),
)
