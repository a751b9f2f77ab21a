"""A request that creates an example greeting, for the tests that run for every resource family."""

from typing import Any

from microjobs_orchestrator.local.resources.greeting.kinds import GREETING

from tests.local.clients import LocalServer
from tests.local.resources.examples import Example, make_required_members


def make_request(server: LocalServer, name: str) -> dict[str, Any]:  # noqa: ARG001
    """Replace this function by one that returns a Create request with all honoured members, and stores the S3 objects
    that the request reads."""
    return make_required_members(GREETING)


EXAMPLES = (Example(GREETING, make_request),)
