"""The kind of hyperparameter tuning jobs."""

from dataclasses import replace

from microjobs_orchestrator.local.kinds import JobStatus, Kind, Lifecycle, LogNames
from microjobs_orchestrator.local.resources.training.kinds import LOG_GROUP, TRAINING_JOB

TUNING_JOB = Kind(
    arn_type="hyper-parameter-tuning-job",
    noun="HyperParameterTuningJob",
    title="tuning",
    lifecycle=Lifecycle(end_member="HyperParameterTuningEndTime", statuses=(*JobStatus, "Deleting", "DeleteFailed")),
    # The log streams of a tuning job are those of its training jobs.
    logs=LogNames(LOG_GROUP, prefix="{name}-"),
    sort_by="Name",
    owns=(TRAINING_JOB,),
    has_trials=True,
    event_name="HyperParameter Tuning Job",
    aws=replace(
        TRAINING_JOB.aws,
        definition="TrainingJobDefinition",
        job_limits="HyperParameterTuningJobConfig.ResourceLimits",
        quota=TRAINING_JOB.display_name,
    ),
)
