"""The operations on models."""

from microjobs_orchestrator.local.resources.models.create import create
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.operations import Operations, Request
from microjobs_orchestrator.local.state import Record


class ModelOperations(Operations):
    kind = MODEL

    def add(self, request: Request) -> Record:
        return create(self.context, request)
