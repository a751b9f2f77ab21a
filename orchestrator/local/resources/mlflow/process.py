"""The process of an MLflow server: its command, its variables, and its health.

It listens on a Unix socket in a folder that only the local server's user can open. All users of the machine could
connect to a port.
"""

import os
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from microjobs.network import connect_unix
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.models.client import PING_SECONDS, Client, Connect, NoResponseError
from microjobs_orchestrator.local.resources.models.serving import StoppedError
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Program

LOCKED_REQUIREMENTS = Path(__file__).with_name("requirements.lock")
PLUGIN_FOLDER = Path(__file__).with_name("plugin")
"""A folder with `PROGRAM`, and with a plug-in of MLflow that refuses artifacts outside of buckets."""
PROGRAM = "microjobs_mlflow_server"
"""The module that runs `mlflow server`."""
DATABASE = "mlflow.db"
SOCKET = "mlflow.sock"
MAX_PATH_BYTES = 107
"""Linux's limit for the path of a Unix socket."""
UVICORN_OPTIONS = "--log-level warning --timeout-worker-healthcheck 60"
"""By default, uvicorn replaces a worker that is silent for 5 s. On a busy machine, the imports of a worker alone take
longer than 5 s, so a worker would be replaced again and again."""
WORKER_COUNT_BY_SIZE: Mapping[str, int] = {"Small": 1, "Medium": 2, "Large": 4}
"""The number of uvicorn's workers, the processes that answer requests, by TrackingServerSize."""

MAX_START_SECONDS = 300.0
"""Maximum number of seconds until MLflow answers. The first start is slow: Python compiles the modules, and MLflow
creates its database."""
POLL_INTERVAL = 0.1
"""Seconds between two checks of the process's health."""


def find_version() -> str:
    """Return the locked version of MLflow."""
    lines = LOCKED_REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return next(line.split()[0].partition("==")[2] for line in lines if line.startswith("mlflow=="))


def start(context: Context, folder: Path, description: Mapping[str, Any]) -> Program:
    """Start the process of a server whose database is in a folder.

    Raises:
        CannotRunError: MLflow cannot be installed or started.
    """
    folder.mkdir(parents=True, exist_ok=True)
    worker_count = WORKER_COUNT_BY_SIZE[description.get("TrackingServerSize", "Small")]
    arguments = ["-m", PROGRAM, "--backend-store-uri", f"sqlite:///{folder.absolute() / DATABASE}"]
    arguments += ["--default-artifact-root", description["ArtifactStoreUri"], "--no-serve-artifacts"]
    arguments += ["--workers", str(worker_count), "--uvicorn-opts", f"--uds {SOCKET} {UVICORN_OPTIONS}"]
    variables = _make_variables(context)
    return context.programs.start("mlflow", LOCKED_REQUIREMENTS, arguments, variables, folder.absolute() / "log")


def _make_variables(context: Context) -> dict[str, str]:
    url = f"http://127.0.0.1:{urlsplit(context.settings.client_url).port}"
    return {
        **context.make_access_variables(),
        "AWS_ENDPOINT_URL": url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "MLFLOW_S3_ENDPOINT_URL": url,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONPATH": str(PLUGIN_FOLDER),
    }


def make_connector(program: Program) -> Connect:
    """Return a function that connects to the process."""
    return partial(connect_unix, Path(program.working_folder) / SOCKET)


def wait_until_healthy(program: Program, stopping: threading.Event) -> None:
    """Wait until the process answers requests.

    Raises:
        StoppedError: `stopping` is set.
        CannotRunError: the process has ended, or does not answer in time, or nothing can connect to its socket.
    """
    path = Path(program.working_folder) / SOCKET
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        problem = f"the path of its socket, {path}, has more than {MAX_PATH_BYTES} bytes"
        raise CannotRunError(
            f"`mlflow server` cannot be reached: {problem}; set TMPDIR to a folder with a shorter path"
        )
    deadline = time.monotonic() + MAX_START_SECONDS
    while program.exit_code is None and time.monotonic() < deadline:
        if _is_healthy(program):
            return
        if stopping.wait(POLL_INTERVAL):
            raise StoppedError
    if program.exit_code is None:
        raise CannotRunError(f"`mlflow server` did not answer within {MAX_START_SECONDS:g} s")
    raise CannotRunError(f"`mlflow server` ended with exit code {program.exit_code}")


def _is_healthy(program: Program) -> bool:
    with closing(Client(make_connector(program))) as client:
        try:
            return client.request("GET", "/health", timeout=PING_SECONDS).status == HTTPStatus.OK
        except NoResponseError:
            return False
