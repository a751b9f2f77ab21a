"""The process of an MLflow server: its command, its variables, and its health.

It listens on a Unix socket in a folder that only this user can open: all users of the machine could connect to a port.
"""

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
from microjobs_orchestrator.local.resources.models.client import PING_SECONDS, Client, Connect, NoAnswerError
from microjobs_orchestrator.local.resources.models.serving import StoppedError
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Program

LOCK = Path(__file__).with_name("requirements.lock")
PLUGIN = Path(__file__).with_name("plugin")
"""A folder with a plug-in of MLflow, which refuses artifacts in local files."""
DATABASE = "mlflow.db"
SOCKET = "mlflow.sock"
WORKERS: Mapping[str, int] = {"Small": 1, "Medium": 2, "Large": 4}
"""Numbers of processes that answer requests, by TrackingServerSize."""

START_SECONDS = 300.0
"""Time for MLflow to answer: on its first start, Python compiles its modules, and it creates its database."""
POLL_INTERVAL = 0.1


def find_version() -> str:
    """Return the locked version of MLflow."""
    lines = LOCK.read_text(encoding="utf-8").splitlines()
    return next(line.split()[0].partition("==")[2] for line in lines if line.startswith("mlflow=="))


def start(context: Context, folder: Path, description: Mapping[str, Any]) -> Program:
    """Start the process of a server whose database is in a folder.

    Raises:
        CannotRunError: MLflow cannot be installed or started.
    """
    folder.mkdir(parents=True, exist_ok=True)
    workers = WORKERS[description.get("TrackingServerSize", "Small")]
    arguments = ["-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder.absolute() / DATABASE}"]
    arguments += ["--default-artifact-root", description["ArtifactStoreUri"], "--no-serve-artifacts"]
    arguments += ["--workers", str(workers), "--uvicorn-opts", f"--uds {SOCKET} --log-level warning"]
    variables = _make_variables(context)
    return context.programs.start("mlflow", LOCK, arguments, variables, folder.absolute() / "log")


def _make_variables(context: Context) -> dict[str, str]:
    url = f"http://127.0.0.1:{urlsplit(context.settings.client_url).port}"
    return {
        **context.make_access_variables(),
        "AWS_ENDPOINT_URL": url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "MLFLOW_S3_ENDPOINT_URL": url,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONPATH": str(PLUGIN),
    }


def make_connect(program: Program) -> Connect:
    """Return a function that connects to the process."""
    return partial(connect_unix, Path(program.scratch) / SOCKET)


def wait_until_healthy(program: Program, stopping: threading.Event) -> None:
    """Wait until the process answers requests.

    Raises:
        StoppedError: `stopping` is set.
        CannotRunError: the process has ended, or does not answer in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while program.exit_code is None and time.monotonic() < deadline:
        if _is_healthy(program):
            return
        if stopping.wait(POLL_INTERVAL):
            raise StoppedError
    if program.exit_code is None:
        raise CannotRunError(f"`mlflow server` did not answer within {START_SECONDS:g} s")
    raise CannotRunError(f"`mlflow server` ended with exit code {program.exit_code}")


def _is_healthy(program: Program) -> bool:
    with closing(Client(make_connect(program))) as client:
        try:
            return client.request("GET", "/health", timeout=PING_SECONDS).status == HTTPStatus.OK
        except NoAnswerError:
            return False
