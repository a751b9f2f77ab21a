"""The operations on greetings."""

from microjobs_orchestrator.local.resources.greeting.kinds import GREETING

from microjobs_orchestrator.local.resources.operations import Operations


class GreetingOperations(Operations):
    """Override `add` to check Create requests, and `further_handlers` to add further operations."""

    kind = GREETING
