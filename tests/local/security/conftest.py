"""A server as users have it, for those who may not use it."""

from collections.abc import Iterator

import pytest

from tests.local.clients import LocalServer, started
from tests.local.security.wire import Sender


@pytest.fixture(scope="package")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server that needs no engine."""
    with started(tmp_path_factory.mktemp("guarded"), runtime="process") as running:
        yield running


@pytest.fixture
def sender(guarded: LocalServer) -> Iterator[Sender]:
    sender = Sender(guarded.address)
    yield sender
    sender.close()
