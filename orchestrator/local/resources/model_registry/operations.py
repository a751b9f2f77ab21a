"""The operations on model packages and their groups."""

from microjobs_orchestrator.local.resources.model_registry.groups import ModelPackageGroupOperations
from microjobs_orchestrator.local.resources.model_registry.packages import ModelPackageOperations

__all__ = ["ModelPackageGroupOperations", "ModelPackageOperations"]
