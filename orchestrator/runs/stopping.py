"""Stops the jobs and pipeline executions of a run, and deletes its endpoints."""

import time
from collections.abc import Callable, Iterator

from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.runs.backend import Backend
from microjobs_orchestrator.runs.execution import list_running_executions
from microjobs_orchestrator.runs.kinds import ENDPOINT, ENDPOINT_CONFIG, KINDS, MODEL, Kind

STOP_TIMEOUT_SECONDS = 600
"""Seconds until all jobs must have stopped. They have 120 s to save their work, which is uploaded afterwards."""

DELETE_TIMEOUT = 1800
"""Seconds until an endpoint must be deleted. AWS deletes an endpoint only after it is in service or has failed."""


def stop_run(backend: Backend, run: str, print_note: Callable[[str], None]) -> int:
    """Stop all jobs and pipeline executions of a run, and delete its endpoints with their configurations and models.

    Args:
        run: the run's name, which is the prefix of its resources' names: `housing-20261122-101500`.
        print_note: prints a line for the user.

    Returns:
        The number of jobs, pipeline executions and endpoints that were stopped or deleted.

    Raises:
        CommandError: a job or an execution did not stop within STOP_TIMEOUT_SECONDS.
    """
    executions = list_running_executions(backend.sagemaker, run)
    for execution in executions:
        print_note(f"stopping pipeline execution {execution.id}")
        execution.stop()
    jobs = list(_list_running_jobs(backend, run))
    for kind, name in jobs:
        print_note(f"stopping {kind.title} {name}")
        kind.stop_or_delete(backend.sagemaker, name)
    # A configuration or a model can exist without an endpoint.
    endpoint_names = sorted(
        {name for kind in (ENDPOINT, ENDPOINT_CONFIG, MODEL) for name in _list_names(backend, kind, run)}
    )
    for name in endpoint_names:
        print_note(f"deleting endpoint {name}, its configuration and its model")
        delete_endpoint(backend, name, print_note)
    _wait_until_stopped(backend, run)
    return len(executions) + len(jobs) + len(endpoint_names)


def _wait_until_stopped(backend: Backend, run: str) -> None:
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    while running := _list_running_names(backend, run):
        if time.monotonic() > deadline:
            names = ", ".join(running)
            raise CommandError(
                f"{names} did not stop within {STOP_TIMEOUT_SECONDS} s: check their status with `microjobs ps`"
            )
        time.sleep(backend.poll_interval)


def _list_running_names(backend: Backend, run: str) -> list[str]:
    executions = [execution.id for execution in list_running_executions(backend.sagemaker, run)]
    return executions + [name for _, name in _list_running_jobs(backend, run)]


def _list_running_jobs(backend: Backend, run: str) -> Iterator[tuple[Kind, str]]:
    for kind in (kind for kind in KINDS if kind.parent is None):
        for status in () if kind.lifecycle.runs_until_deleted else kind.lifecycle.transitional_statuses:
            yield from ((kind, name) for name in _list_names(backend, kind, run, StatusEquals=status))


def _list_names(backend: Backend, kind: Kind, run: str, **filters: str) -> list[str]:
    """Return the names of a run's resources of a kind."""
    names = [row[kind.name_member] for row in kind.list_summaries(backend.sagemaker, NameContains=run, **filters)]
    return [name for name in names if name.startswith(f"{run}-")]


def delete_endpoint(backend: Backend, name: str, print_note: Callable[[str], None]) -> None:
    """Delete an endpoint, and wait until it is deleted. Then delete the configuration and the model with the same name.

    Raises:
        CommandError: the endpoint still exists after DELETE_TIMEOUT.
    """
    deadline = time.monotonic() + DELETE_TIMEOUT
    status = ""
    while (description := ENDPOINT.describe(backend.sagemaker, name)) is not None:
        if status != (status := description["EndpointStatus"]):
            print_note(f"deleting endpoint {name}, which is {status}")
        if time.monotonic() > deadline:
            raise CommandError(
                f"endpoint {name} is {status} and was not deleted within {DELETE_TIMEOUT} s: "
                "check its status with `microjobs ps`"
            )
        # This request is repeated, because AWS refuses to delete an endpoint that it is still creating.
        ENDPOINT.stop_or_delete(backend.sagemaker, name)
        time.sleep(backend.poll_interval)
    ENDPOINT_CONFIG.stop_or_delete(backend.sagemaker, name)
    MODEL.stop_or_delete(backend.sagemaker, name)
