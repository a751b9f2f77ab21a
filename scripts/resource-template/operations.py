"""The operations on greetings."""

from microjobs_orchestrator.local.resources.greeting.job import GreetingRun
from microjobs_orchestrator.local.resources.greeting.kinds import GREETING

from microjobs_orchestrator.local.lifecycle.registry import Runnable
from microjobs_orchestrator.local.resources.operations import RunningOperations
from microjobs_orchestrator.local.state import Record


class GreetingOperations(RunningOperations):
    """Override `add` to check Create requests, and `list_additional_handlers` to add other operations."""

    kind = GREETING

    def make_runnable(self, record: Record) -> Runnable:
        return GreetingRun(self.context, record)
