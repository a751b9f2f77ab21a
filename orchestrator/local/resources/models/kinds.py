"""The kind of models."""

from microjobs_orchestrator.local.resources.kind import Kind

MODEL = Kind("model", "Model")
