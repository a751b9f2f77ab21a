"""A cloud in memory and runs on it."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from microjobs_orchestrator.runs.journal import Journal
from microjobs_orchestrator.runs.progress import Progress
from microjobs_orchestrator.runs.run import Run
from tests.launcher.cloud import Cloud

StartRun = Callable[..., Run]


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


@pytest.fixture
def screen() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def start(cloud: Cloud, tmp_path: Path, screen: io.StringIO) -> StartRun:
    """A run on the cloud: a new one, or the next attempt of a journal."""

    def start(workflow: str = "housing", journal: Journal | None = None, *, verbose: bool = False) -> Run:
        progress = Progress(Console(file=screen, width=80), verbose=verbose)
        journal = journal or Journal.new(tmp_path / "runs", workflow, {})
        return Run(cloud.backend(), journal, progress)

    return start
