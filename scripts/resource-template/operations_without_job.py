"""The operations on greetings."""

from microjobs_orchestrator.local.resources.greeting.kinds import GREETING

from microjobs_orchestrator.local.resources.operations import Operations


class GreetingOperations(Operations):
    """Replace `add` to check a Create request, and `more` for operations beside the common ones."""

    kind = GREETING
