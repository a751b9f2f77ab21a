"""The kind of training jobs."""

from microjobs_orchestrator.local.resources.kind import Kind

TRAINING_JOB = Kind("training-job", "TrainingJob")
