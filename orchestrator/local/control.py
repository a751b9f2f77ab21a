"""Starts, finds and stops the server of a home."""

import fcntl
import hmac
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from microjobs.files import write_text
from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.local import console_address, home_lock
from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.home import Home, read_file
from microjobs_orchestrator.local.identity import (
    MLFLOW_PATH,
    get_default_bucket,
    get_role_arn,
    make_mlflow_token,
    prove_identity,
)

logger = logging.getLogger(__name__)

START_TIMEOUT = 120.0
"""Seconds that a server may take to start. On a machine with many other processes, a start on Podman took more than
60 s."""
STOP_TIMEOUT = 60.0
"""Seconds between SIGTERM and SIGKILL for a server that answers."""
RESPONSE_TIMEOUT = 5.0
"""Seconds that a health check may take."""
HANG_TIMEOUT = 15.0
"""If a server that was ready before does not answer for this number of seconds, `await_server` stops it."""
TERM_TIMEOUT = 10.0
"""Seconds between SIGTERM and SIGKILL for a server that does not answer."""
POLL_INTERVAL = 0.05
"""Seconds between two checks whether a server has started or ended."""
MAX_RESPONSE_BYTES = 4096

SERVER_FILE_MEMBERS = {"url": str, "region": str, "runtime": str, "why": str, "pid": int}
"""Members of `server.json`, and their types."""

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Servers that this process started, by process id: only the parent of a process can wait for it."""


class ServerError(CommandError):
    """The server cannot start or does not answer. The message states the remedy."""


@dataclass(frozen=True)
class Address:
    """Address of a server, and the settings that clients need."""

    url: str
    region: str
    access_key_id: str
    secret_access_key: str
    bucket: str
    role_arn: str
    runtime: str
    why: str
    """Reason for this runtime."""
    pid: int


def find_server(home: Home) -> Address | None:
    """Return the address of a home's server, or None if no server runs or the server does not answer.

    Raises:
        HomeError: other users could have written the server's address.
        ServerError: another program answers at the address.
    """
    settings = _read_settings(home)
    if settings is None or settings["pid"] != home_lock.find_holder(home):
        return None
    nonce = secrets.token_hex(32)
    if (response := _request_health(settings["url"], nonce)) is None:
        return None
    port = settings["url"].rpartition(":")[2]
    expected_proof = prove_identity(home.server_key(), home.root, settings["pid"], nonce, port)
    if not hmac.compare_digest(expected_proof.encode(), str(response.get("proof")).encode()):
        raise ServerError(
            f"the program at {settings['url']} does not know the secret of {home.root}: it is another program, or a "
            "server of an older version; run `microjobs local down`, then `microjobs local up`"
        )
    bucket = get_default_bucket(settings["region"])
    return Address(**settings, **asdict(home.credentials()), bucket=bucket, role_arn=get_role_arn())


def _read_settings(home: Home) -> dict[str, Any] | None:
    """Return the content of `server.json`, or None if the file is missing or damaged."""
    if not os.path.lexists(home.root):
        return None
    home.check()
    try:
        settings = json.loads(read_file(home.server_file))
    except (OSError, ValueError, RecursionError):  # no server runs, or it is stopping
        return None
    is_valid = isinstance(settings, dict) and all(
        isinstance(settings.get(key), type_) for key, type_ in SERVER_FILE_MEMBERS.items()
    )
    return {key: settings[key] for key in SERVER_FILE_MEMBERS} if is_valid else None


def _request_health(url: str, nonce: str) -> dict[str, Any] | None:
    """Return the response to a health check: empty if it is not a JSON object, and None if there is no response."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=RESPONSE_TIMEOUT)  # HTTPConnection uses no proxy
    with closing(connection):
        try:
            connection.request("GET", f"/health?nonce={nonce}")
            content = json.loads(connection.getresponse().read(MAX_RESPONSE_BYTES))
        except (OSError, HTTPException):
            return None
        except ValueError:
            return {}
    return content if isinstance(content, dict) else {}


def make_console_address(home: Home, address: Address) -> str:
    """Return an address that opens the web console of a running server once."""
    return console_address.make_console_address(address.url, home.server_key(), home.root, address.pid)


def await_server(home: Home) -> Address | None:
    """Return the address of a home's server, or None if no server runs.

    Wait for a server that is starting or stopping, and stop a server that does not answer.

    Raises:
        HomeError, ServerError: for the same reasons as in `find_server`.
    """
    start_time = time.monotonic()
    while (address := find_server(home)) is None and (pid := home_lock.find_holder(home)) is not None:
        settings = _read_settings(home)
        timeout = HANG_TIMEOUT if settings and settings["pid"] == pid else START_TIMEOUT
        if time.monotonic() - start_time > timeout:
            logger.warning("the server, process %d, has not answered for %g s and is stopped", pid, timeout)
            _stop_process(home, pid, TERM_TIMEOUT)
            return None
        time.sleep(POLL_INTERVAL)
    return address


def explain_missing_server(home: Home) -> str:
    """Return the error message for a command that needs a server if `find_server` has found none."""
    if (pid := home_lock.find_holder(home)) is None:
        return f"no server runs for {home.root}: `microjobs local up --detach` starts one"
    problem = f"the server of {home.root}, process {pid}, does not answer: it is starting, stopping or hanging"
    return f"{problem}; try again, or stop it with `microjobs local down`"


def start(home: Home, config: Config, *, stops_when_unused: bool = False) -> Address:
    """Start a server in a process of its own, and wait until it answers.

    Args:
        stops_when_unused: whether the server stops when no process holds a lock on the home's `users` file.

    Raises:
        ServerError: the server ended, or did not answer within `START_TIMEOUT`; the message has the last line of its
            log.
    """
    for child in _children.values():  # a killed server is a zombie of this process until it is polled
        child.poll()
    home.create()
    log_size = home.server_log.stat().st_size if home.server_log.exists() else 0
    process = _spawn(home, config, stops_when_unused=stops_when_unused)
    _children[process.pid] = process
    if address := _wait_until_ready(home, process):
        return address
    lines = home.server_log.read_bytes()[log_size:].decode(errors="replace").strip().splitlines()
    reason = lines[-1].removeprefix("microjobs: ") if lines else "its log is empty"
    if process.poll() is None:
        reason = f"it did not answer within {START_TIMEOUT:g} s; the end of its log: {reason}"
        _stop_process(home, process.pid, TERM_TIMEOUT)
    raise ServerError(f"the server did not start: {reason} (see {home.server_log})")


def _spawn(home: Home, config: Config, *, stops_when_unused: bool) -> subprocess.Popen[bytes]:
    arguments = [*config.to_flags(), *(["--tied"] if stops_when_unused else [])]
    with home.server_log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "microjobs_orchestrator.local", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "MICROJOBS_HOME": str(home.root)},
        )


def _wait_until_ready(home: Home, process: subprocess.Popen[bytes]) -> Address | None:
    """Return the address of a server that is starting, or None if it exits or does not answer in time."""
    deadline = time.monotonic() + START_TIMEOUT
    try:
        while time.monotonic() < deadline and process.poll() is None:
            if (address := find_server(home)) is not None and address.pid == process.pid:
                return address
            time.sleep(POLL_INTERVAL)
    except BaseException:  # the server does not receive Ctrl-C in its own session, so this function ends it
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(TERM_TIMEOUT)  # the caller may remove the home after the server's end
        raise
    return None


def stop(home: Home) -> bool:
    """Stop the server of a home, its jobs and endpoints; return False if no server runs.

    A server that does not answer, or does not stop, is killed.

    Raises:
        ServerError: the server cannot be killed.
    """
    settings = _read_settings(home)
    if (pid := home_lock.find_holder(home)) is None:
        if settings is not None:
            home.server_file.unlink(missing_ok=True)  # a killed server has left its file
        return False
    try:
        timeout = STOP_TIMEOUT if find_server(home) else TERM_TIMEOUT
    except CommandError:  # the process that holds the lock is the server, although another program answers
        timeout = TERM_TIMEOUT
    _stop_process(home, pid, timeout)
    return True


def _stop_process(home: Home, pid: int, seconds: float) -> None:
    """Stop the process of a server; kill it after some seconds."""
    if _signal_and_wait(home, pid, signal.SIGTERM, seconds):
        return
    message = "the server, process %d, did not stop within %g s and is killed; the next server resumes running jobs"
    logger.warning(message, pid, seconds)
    if not _signal_and_wait(home, pid, signal.SIGKILL, TERM_TIMEOUT):
        raise ServerError(f"the server, process {pid}, cannot be killed: its disk or engine may hang; see `ps {pid}`")


def _signal_and_wait(home: Home, pid: int, number: signal.Signals, seconds: float) -> bool:
    """Send a signal to a server, and return whether it exits within some seconds. Reap it if it is a child."""
    deadline, child = time.monotonic() + seconds, _children.get(pid)
    if child is not None and child.poll() is not None:
        child = None  # the child has exited, so another process may have its id
    with suppress(ProcessLookupError):
        if child:
            child.send_signal(number)
        else:
            os.kill(pid, number)
    while (child.poll() is None) if child else (home_lock.find_holder(home) == pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_INTERVAL)
    return True


@contextmanager
def use_server(home: Home, config: Config) -> Iterator[Address]:
    """Yield the address of a home's server. If no server runs, start one.

    A server that this function has started stops when no process is in a `use_server` block.
    """
    home.create()
    with home.users.open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        if address := await_server(home):
            yield address
            return
        address = start(home, config, stops_when_unused=True)
        try:
            yield address
        finally:
            with suppress(BlockingIOError):  # another process still uses the server
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                stop(home)


def make_mlflow_environment(home: Home, address: Address, server: str) -> dict[str, str]:
    """Return the environment variables with which MLflow's own client uses an MLflow server.

    The client sends a token instead of a signature.

    Args:
        server: the name of a tracking server, or `mlflow-app/<name>`.
    """
    path = server if "/" in server else f"mlflow-tracking-server/{server}"
    return {
        "MLFLOW_TRACKING_URI": f"{address.url}{MLFLOW_PATH}/{path}",
        "MLFLOW_TRACKING_TOKEN": make_mlflow_token(home.server_key()),
    }


def make_environment(home: Home, address: Address) -> dict[str, str]:
    """Return the environment variables with which AWS clients and the SageMaker SDK use the server.

    This function also writes the file with the SDK's own settings: the default bucket, no telemetry, and the role,
    because the SDK's `get_execution_role` always calls AWS's own STS.
    """
    modules = {"Session": {"DefaultS3Bucket": address.bucket}, "TelemetryOptOut": True}
    settings = {
        "SchemaVersion": "1.0",
        "SageMaker": {
            "PythonSDK": {"Modules": modules},
            "ProcessingJob": {"RoleArn": address.role_arn},
            "TrainingJob": {"RoleArn": address.role_arn},
            "Model": {"ExecutionRoleArn": address.role_arn},
        },
    }
    write_text(home.sdk_config, json.dumps(settings))  # the SDK reads YAML, and JSON is valid YAML
    return {
        "AWS_ENDPOINT_URL": address.url,
        "AWS_ACCESS_KEY_ID": address.access_key_id,
        "AWS_SECRET_ACCESS_KEY": address.secret_access_key,
        "AWS_REGION": address.region,
        "AWS_DEFAULT_REGION": address.region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT": address.url,
        "SAGEMAKER_ROLE": address.role_arn,
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(home.sdk_config),
    }
