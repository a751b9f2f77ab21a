"""The kind of pipelines."""

from microjobs_orchestrator.local.kinds import Kind

PIPELINE = Kind("pipeline", "Pipeline", "pipeline", verbs=("Describe", "List", "Delete"), newest_first=True)
