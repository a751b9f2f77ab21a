"""The operations on processing jobs."""

from microjobs_orchestrator.local.lifecycle.registry import Runnable
from microjobs_orchestrator.local.resources.operations import Request, RunningOperations
from microjobs_orchestrator.local.resources.processing.create import create
from microjobs_orchestrator.local.resources.processing.job import ProcessingJob
from microjobs_orchestrator.local.resources.processing.kinds import PROCESSING_JOB
from microjobs_orchestrator.local.state import Record


class ProcessingJobOperations(RunningOperations):
    kind = PROCESSING_JOB

    def add(self, request: Request) -> Record:
        return create(self.context, request)

    def make_runnable(self, record: Record) -> Runnable:
        return ProcessingJob(self.context, record)
