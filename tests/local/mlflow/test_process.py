"""Test of the process of an MLflow server."""

import threading
from dataclasses import dataclass
from typing import cast

import pytest

from microjobs_orchestrator.local.resources.mlflow.process import MAX_PATH_BYTES, wait_until_healthy
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Program


@dataclass
class EndedProgram:
    """A program that has already ended, so that `wait_until_healthy` does not wait for it."""

    working_folder: str
    exit_code: int = 1


@pytest.mark.parametrize(
    ("folder_bytes", "message"),  # `/mlflow.sock` has 12 bytes
    [(MAX_PATH_BYTES - 12, "ended with exit code 1"), (MAX_PATH_BYTES - 11, "set TMPDIR to a folder")],
)
def test_socket_whose_path_is_too_long_is_reported(folder_bytes: int, message: str) -> None:
    program = EndedProgram("/" + "x" * (folder_bytes - 1))
    with pytest.raises(CannotRunError, match=message):
        wait_until_healthy(cast("Program", program), threading.Event())
