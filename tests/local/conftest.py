"""The server that most tests share."""

from collections.abc import Iterator

import pytest

from tests.local.clients import Local, started


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A server whose jobs run in containers."""
    with started(tmp_path_factory.mktemp("local"), runtime="docker") as running:
        yield running
