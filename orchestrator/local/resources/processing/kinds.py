"""The kind of processing jobs."""

from microjobs_orchestrator.local.resources.kind import Kind

PROCESSING_JOB = Kind("processing-job", "ProcessingJob")
