"""After a launcher that was killed: end what its run left, found by the run's name in all names."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from botocore import xform_name

from microjobs_orchestrator.failures import LauncherError
from microjobs_orchestrator.runs.backend import Backend
from microjobs_orchestrator.runs.kinds import ENDPOINT, KINDS, Kind
from microjobs_orchestrator.runs.run import delete_endpoint

CLEAN_SECONDS = 600
"""How long jobs may take to stop: they have 120 s to save their work, and then it is uploaded."""

JOBS = tuple(kind for kind in KINDS if kind is not ENDPOINT)


def stop_run(backend: Backend, run: str, note: Callable[[str], None]) -> int:
    """Stop all jobs of a run, and delete its endpoint with configuration and model.

    Args:
        backend: where it ran.
        run: such as `housing-20261122-101500`.
        note: takes a line for people.

    Returns:
        How many things there were to end.

    Raises:
        LauncherError: some would not end.
    """
    jobs = list(_going(backend, run))
    for kind, name in jobs:
        note(f"stopping {kind.title} {name}")
        kind.stop(backend.sagemaker, name)
    hosted = _hosted(backend, run)
    for name in hosted:
        note(f"deleting endpoint {name}, its configuration and its model")
        delete_endpoint(backend, name, note)
    deadline = time.monotonic() + CLEAN_SECONDS
    while left := list(_going(backend, run)):
        if time.monotonic() > deadline:
            raise LauncherError(f"{', '.join(name for _, name in left)} did not stop within {CLEAN_SECONDS} s")
        time.sleep(backend.poll)
    return len(jobs) + len(hosted)


def _going(backend: Backend, run: str) -> Iterator[tuple[Kind, str]]:
    for kind in JOBS:
        for status in kind.going:
            for name in _names(backend, f"List{kind.word}s", kind.name, run, StatusEquals=status):
                yield kind, name


def _hosted(backend: Backend, run: str) -> list[str]:
    """PlanNames of endpoints, or of what is left of some."""
    words = ("Endpoint", "EndpointConfig", "Model")
    return sorted({name for word in words for name in _names(backend, f"List{word}s", f"{word}Name", run)})


def _names(backend: Backend, operation: str, member: str, run: str, **members: Any) -> list[str]:
    sagemaker: Any = backend.sagemaker  # its stubs know no operation but by a literal
    pages = sagemaker.get_paginator(xform_name(operation)).paginate(NameContains=run, **members)
    rows = (row for page in pages for value in page.values() if isinstance(value, list) for row in value)
    return [row[member] for row in rows if row[member].startswith(f"{run}-")]
