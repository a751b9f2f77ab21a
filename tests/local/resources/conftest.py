"""Fixtures of the tests of resource families."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from microjobs_orchestrator.local.home import Home
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import FakeRuntime, ImageBehaviour
from tests.local.resources.tracking import Tracking


@pytest.fixture
def tracking(tmp_path: Path) -> Iterator[Tracking]:
    """The operations on experiments and lineage, on a server with an input object and an image for jobs."""
    home = Home(tmp_path / "home")
    home.create()
    runtime = FakeRuntime()
    runtime.behaviours |= {"nobody/nothing:0": ImageBehaviour()}
    parts = ServerParts.from_home(home, runtime)
    parts.put("in/a", b"1,2\n")
    yield Tracking(parts)
    parts.close()
    runtime.close()
