"""The kind of batch transform jobs."""

from microjobs_orchestrator.local.kinds import Kind, Life, LogNames

TRANSFORM_JOB = Kind(
    "transform-job",
    "TransformJob",
    "transform",
    life=Life(end_member="TransformEndTime"),
    logs=LogNames("/aws/sagemaker/TransformJobs"),
    verbs=("Describe", "List", "Stop"),
    newest_first=True,
)
