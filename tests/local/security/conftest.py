"""Fixtures of the security tests: a local server on the process runtime, and a sender of requests."""

from collections.abc import Iterator

import pytest

from tests.local.clients import LocalServer, run_server
from tests.local.security.wire import Sender


@pytest.fixture(scope="package")
def process_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server on the process runtime, with default settings otherwise."""
    with run_server(tmp_path_factory.mktemp("process-server"), runtime="process") as server:
        yield server


@pytest.fixture
def sender(process_server: LocalServer) -> Iterator[Sender]:
    sender = Sender(process_server.address)
    yield sender
    sender.close()
