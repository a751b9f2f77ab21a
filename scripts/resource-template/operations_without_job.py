"""The operations on greetings."""

from microjobs_orchestrator.local.resources.greeting.kinds import GREETING

from microjobs_orchestrator.local.resources.operations import Operations


class GreetingOperations(Operations):
    """Override `add` to check Create requests, and `list_additional_handlers` to add other operations."""

    kind = GREETING
