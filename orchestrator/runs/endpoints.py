"""Deletes endpoints, together with their configurations and models."""

import time
from collections.abc import Callable

from botocore.exceptions import ClientError

from microjobs_orchestrator.failures import LauncherError
from microjobs_orchestrator.runs.backend import Backend
from microjobs_orchestrator.runs.kinds import ABSENT_CODES, ENDPOINT, Members

DELETE_TIMEOUT = 1800
"""Seconds. AWS deletes an endpoint only after it is in service or has failed."""


def delete_endpoint(backend: Backend, name: str, note: Callable[[str], None]) -> None:
    """Delete an endpoint, its configuration and its model, as far as they exist, and wait until they are gone.

    Args:
        name: the name of all three.
        note: prints a line for the user.

    Raises:
        LauncherError: the endpoint still exists after DELETE_TIMEOUT.
    """
    deadline = time.monotonic() + DELETE_TIMEOUT
    status = ""
    while (description := ENDPOINT.describe(backend.sagemaker, name)) is not None:
        if status != (status := description["EndpointStatus"]):
            note(f"deleting endpoint {name}, which is {status}")
        if time.monotonic() > deadline:
            raise LauncherError(f"endpoint {name} is {status} and could not be deleted: check it in AWS's console")
        if _request_deletion(backend, name) is not None:
            time.sleep(backend.poll_interval)
    _delete_if_exists(lambda: backend.sagemaker.delete_endpoint_config(EndpointConfigName=name))
    _delete_if_exists(lambda: backend.sagemaker.delete_model(ModelName=name))


def _request_deletion(backend: Backend, name: str) -> Members | None:
    """Request the deletion, which AWS refuses while it creates the endpoint; return the description that remains."""
    ENDPOINT.stop(backend.sagemaker, name)
    return ENDPOINT.describe(backend.sagemaker, name)


def _delete_if_exists(delete: Callable[[], object]) -> None:
    try:
        delete()
    except ClientError as error:
        if error.response["Error"]["Code"] not in ABSENT_CODES:
            raise
