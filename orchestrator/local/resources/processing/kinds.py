"""The kind of processing jobs."""

from microjobs_orchestrator.local.kinds import Kind, Life, LogNames

PROCESSING_JOB = Kind(
    "processing-job",
    "ProcessingJob",
    "processing",
    life=Life(end_member="ProcessingEndTime"),
    logs=LogNames("/aws/sagemaker/ProcessingJobs"),
)
