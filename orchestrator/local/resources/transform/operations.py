"""The operations on batch transform jobs."""

from microjobs_orchestrator.local.lifecycle.registry import Runnable
from microjobs_orchestrator.local.resources.operations import Request, RunningOperations
from microjobs_orchestrator.local.resources.transform.create import create
from microjobs_orchestrator.local.resources.transform.job import TransformJob
from microjobs_orchestrator.local.resources.transform.kinds import TRANSFORM_JOB
from microjobs_orchestrator.local.state import Record


class TransformJobOperations(RunningOperations):
    kind = TRANSFORM_JOB

    def add(self, request: Request) -> Record:
        return create(self.context, request)

    def make_runnable(self, record: Record) -> Runnable:
        return TransformJob(self.context, record)
