"""Plugin for pytest, with the fixture `microjobs`: a local server for the tests of a project.

If this package is installed, pytest imports this module in every project. To keep that import fast, the fixtures import
the other modules when a test uses them.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from microjobs_orchestrator.library.local_server import LocalServer


@pytest.fixture(scope="session")
def microjobs_settings() -> dict[str, Any]:
    """Return the arguments of `microjobs.local.server` for the tests. Redefine this fixture to change them."""
    return {}


@pytest.fixture(scope="session")
def microjobs_server(
    microjobs_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[LocalServer]":
    """Run a server until the end of the session. With pytest-xdist, each worker has its own server.

    Use this fixture in fixtures that several tests share: the resources of such fixtures are not removed after a test.
    """
    from microjobs_orchestrator.library.servers import server

    folder = tmp_path_factory.mktemp("microjobs")
    with server(**{"folder": folder, **microjobs_settings}) as running:
        yield running


@pytest.fixture
def microjobs(microjobs_server: "LocalServer") -> "Iterator[LocalServer]":
    """Direct the AWS clients to the server during the test, and remove the resources that the test created."""
    from microjobs_orchestrator.library.removal import list_names, remove_new_resources
    from microjobs_orchestrator.library.servers import direct_clients

    earlier_names = list_names(microjobs_server)
    with direct_clients(microjobs_server):
        yield microjobs_server
    remove_new_resources(microjobs_server, earlier_names)
