"""Fixtures for servers in the process of the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.runtimes.base import Exit
from tests.local.jobs.fakes import FakeRuntime, Model


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.create()
    made.credentials()
    return made


@pytest.fixture
def runtime() -> Iterator[FakeRuntime]:
    made = FakeRuntime()
    made.models["model"] = Model(exit_at_start=Exit(0))
    yield made
    made.close()
