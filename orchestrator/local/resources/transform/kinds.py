"""The kind of batch transform jobs."""

from microjobs_orchestrator.local.resources.kind import Kind

TRANSFORM_JOB = Kind("transform-job", "TransformJob")
