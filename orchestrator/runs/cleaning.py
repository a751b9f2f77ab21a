"""Stops what a killed launcher left: the jobs and the endpoint of a run, found by the run's name."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from botocore import xform_name

from microjobs_orchestrator.failures import LauncherError
from microjobs_orchestrator.runs.backend import Backend
from microjobs_orchestrator.runs.endpoints import delete_endpoint
from microjobs_orchestrator.runs.kinds import KINDS, Kind

STOP_TIMEOUT = 600
"""Seconds. Jobs have 120 s to save their work, which is uploaded afterwards."""

JOBS = tuple(kind for kind in KINDS if not kind.life.is_lasting)


def stop_run(backend: Backend, run: str, note: Callable[[str], None]) -> int:
    """Stop all jobs of a run, and delete its endpoint with configuration and model.

    Args:
        run: the run's name, such as `housing-20261122-101500`.
        note: prints a line for the user.

    Returns:
        The number of jobs and endpoints that were stopped or deleted.

    Raises:
        LauncherError: a job did not stop within STOP_TIMEOUT.
    """
    jobs = list(_running_jobs(backend, run))
    for kind, name in jobs:
        note(f"stopping {kind.title} {name}")
        kind.stop(backend.sagemaker, name)
    endpoints = _endpoint_names(backend, run)
    for name in endpoints:
        note(f"deleting endpoint {name}, its configuration and its model")
        delete_endpoint(backend, name, note)
    _wait_until_stopped(backend, run)
    return len(jobs) + len(endpoints)


def _wait_until_stopped(backend: Backend, run: str) -> None:
    deadline = time.monotonic() + STOP_TIMEOUT
    while running := list(_running_jobs(backend, run)):
        if time.monotonic() > deadline:
            names = ", ".join(name for _, name in running)
            raise LauncherError(f"{names} did not stop within {STOP_TIMEOUT} s: `microjobs ps` shows the status")
        time.sleep(backend.poll_interval)


def _running_jobs(backend: Backend, run: str) -> Iterator[tuple[Kind, str]]:
    for kind in JOBS:
        for status in kind.life.transitional:
            for name in _names(backend, kind.operations["List"], kind.name_member, run, StatusEquals=status):
                yield kind, name


def _endpoint_names(backend: Backend, run: str) -> list[str]:
    """Return the names of endpoints, and of configurations and models whose endpoint no longer exists."""
    nouns = ("Endpoint", "EndpointConfig", "Model")
    return sorted({name for noun in nouns for name in _names(backend, f"List{noun}s", f"{noun}Name", run)})


def _names(backend: Backend, operation: str, member: str, run: str, **members: Any) -> list[str]:
    sagemaker: Any = backend.sagemaker  # its type stubs accept only literal names of operations
    pages = sagemaker.get_paginator(xform_name(operation)).paginate(NameContains=run, **members)
    rows = (row for page in pages for value in page.values() if isinstance(value, list) for row in value)
    return [row[member] for row in rows if row[member].startswith(f"{run}-")]
