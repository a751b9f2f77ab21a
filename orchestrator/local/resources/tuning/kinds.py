"""The kind of hyperparameter tuning jobs."""

from microjobs_orchestrator.local.resources.kind import Kind

TUNING_JOB = Kind("hyper-parameter-tuning-job", "HyperParameterTuningJob")
