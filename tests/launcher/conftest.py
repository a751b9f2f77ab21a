"""Fixtures: a cloud in memory, and a function that starts runs on this cloud."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from rich.console import Console

from microjobs_orchestrator.runs.journal import Journal
from microjobs_orchestrator.runs.progress import Progress
from microjobs_orchestrator.runs.run import Run
from microjobs_orchestrator.runs.workflow import Block, RunResults
from tests.launcher.cloud import Cloud

StartRun = Callable[..., Run]
BlockType = TypeVar("BlockType", bound=Block)


def find_block(results: RunResults, block_type: type[BlockType]) -> BlockType:
    """Return the only block of a type in the results of a run."""
    (block,) = (item for item in results.blocks if isinstance(item, block_type))
    return block


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


@pytest.fixture
def screen() -> io.StringIO:
    """The text that runs print."""
    return io.StringIO()


@pytest.fixture
def start_run(cloud: Cloud, tmp_path: Path, screen: io.StringIO) -> StartRun:
    """Return a function that starts a new run on the cloud, or resumes the run of a journal."""

    def start_run(workflow: str = "housing", journal: Journal | None = None, *, verbose: bool = False) -> Run:
        progress = Progress(Console(file=screen, width=80), verbose=verbose)
        journal = journal or Journal.new(tmp_path / "runs", workflow, {})
        return Run(cloud.make_backend(), journal, progress)

    return start_run
