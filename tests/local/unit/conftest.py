"""A store of objects for the tests in this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.s3.store import ObjectStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    """A store with the bucket `data`."""
    home = Home(tmp_path / "home")
    home.create()
    new_store = ObjectStore(home)
    new_store.create_bucket("data")
    yield new_store
    new_store.close()
