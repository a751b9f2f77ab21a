"""A store to put objects into."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.s3.store import ObjectStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    home = Home(tmp_path / "home")
    home.create()
    opened = ObjectStore(home)
    opened.create_bucket("data")
    yield opened
    opened.close()
