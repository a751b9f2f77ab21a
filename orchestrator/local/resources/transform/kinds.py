"""The kind of batch transform jobs."""

from microjobs_orchestrator.local.kinds import AwsMembers, Kind, Lifecycle, LogNames

TRANSFORM_JOB = Kind(
    arn_type="transform-job",
    noun="TransformJob",
    title="transform",
    lifecycle=Lifecycle(end_member="TransformEndTime"),
    logs=LogNames("/aws/sagemaker/TransformJobs"),
    verbs=("Describe", "List", "Stop"),
    newest_first=True,
    aws=AwsMembers(
        instances="TransformResources",
        output_kms_key="TransformOutput.KmsKeyId",
        volume_kms_key="TransformResources.VolumeKmsKeyId",
    ),
)
