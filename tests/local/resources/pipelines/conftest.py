"""Fixtures for servers in the process of the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.runtimes.base import Exit
from tests.local.jobs.fakes import FakeRuntime, ImageBehaviour


@pytest.fixture
def home(tmp_path: Path) -> Home:
    new_home = Home(tmp_path / "home")
    new_home.create()
    new_home.credentials()
    return new_home


@pytest.fixture
def runtime() -> Iterator[FakeRuntime]:
    """A runtime whose containers with the image `model` end immediately with exit code 0."""
    new_runtime = FakeRuntime()
    new_runtime.behaviours["model"] = ImageBehaviour(exit_at_start=Exit(0))
    yield new_runtime
    new_runtime.close()
