"""The kind of models."""

from microjobs_orchestrator.local.kinds import Kind

MODEL = Kind("model", "Model", "model", verbs=("Describe", "List", "Delete"), summaries="Models", newest_first=True)
