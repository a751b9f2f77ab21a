"""How others find the server of a folder, start one and end it. What the server itself is: `serve`."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException

from microjobs.files import write_text
from orchestrator.failures import LauncherError
from orchestrator.local.config import Config
from orchestrator.local.home import ACCOUNT, ROLE, Home, default_bucket

START_SECONDS = 60.0
END_SECONDS = 60.0


_started: dict[int, subprocess.Popen[bytes]] = {}
"""Servers that this process started: its children, which nobody else can wait for."""


class ServerError(LauncherError):
    """The server cannot start or does not answer, with what to do."""


@dataclass(frozen=True)
class Address:
    """All that a client needs."""

    url: str
    region: str
    access_key_id: str
    secret_access_key: str
    bucket: str
    role_arn: str
    runtime: str
    why: str
    """Why it is this runtime."""
    pid: int


def running(home: Home) -> Address | None:
    """The server that serves this folder, if there is one and it answers."""
    try:
        known = json.loads(home.server.read_text())
        with urllib.request.urlopen(f"{known['url']}/health", timeout=5) as answer:
            if json.load(answer)["pid"] != known["pid"]:
                return None
    except (OSError, HTTPException, ValueError, KeyError):
        return None
    credentials = home.credentials()
    return Address(
        **known,
        access_key_id=credentials.access_key_id,
        secret_access_key=credentials.secret_access_key,
        bucket=default_bucket(known["region"]),
        role_arn=f"arn:aws:iam::{ACCOUNT}:role/{ROLE}",
    )


def start(home: Home, config: Config, *, tied: bool = False) -> Address:
    """Start a server in a process of its own, and wait until it answers.

    Args:
        tied: it ends when nobody has the folder's `users` locked any more, however they ended.

    Raises:
        ServerError: it ended at once, with its last words.
    """
    for earlier in _started.values():  # one that was killed is still a zombie of ours
        earlier.poll()
    home.make()
    command = [sys.executable, "-m", "orchestrator.local", *config.arguments(), *(["--tied"] if tied else [])]
    with home.server_log.open("ab") as log:
        begun = log.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "MICROJOBS_HOME": str(home.root)},
        )
    _started[process.pid] = process
    deadline = time.monotonic() + START_SECONDS
    try:
        while time.monotonic() < deadline and process.poll() is None:
            if (address := running(home)) is not None and address.pid == process.pid:
                return address
            time.sleep(0.05)
    except BaseException:  # Ctrl-C: a session of its own does not hear it
        process.terminate()
        raise
    process.terminate()
    process.wait()
    said = home.server_log.read_bytes()[begun:].decode(errors="replace").strip().splitlines()
    last = said[-1] if said else f"it said nothing within {START_SECONDS:g} s"
    raise ServerError(f"the server did not start: {last} (see {home.server_log})")


def stop(home: Home) -> bool:
    """End the server of this folder, with all that runs on it; False if there was none.

    Raises:
        ServerError: it did not end.
    """
    address = running(home)
    if address is None:
        return False
    os.kill(address.pid, signal.SIGTERM)
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        if not _is_alive(address.pid):
            return True
        time.sleep(0.05)
    raise ServerError(f"the server, process {address.pid}, did not end within {END_SECONDS:g} s")


def _is_alive(pid: int) -> bool:
    if (process := _started.get(pid)) is not None:
        return process.poll() is None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def serving(home: Home, config: Config) -> Iterator[Address]:
    """The server of this folder; if none runs, one for the time of the block, and of others that use it meanwhile."""
    home.make()
    with home.users.open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        address = running(home)
        if address is not None:
            yield address
            return
        address = start(home, config, tied=True)
        try:
            yield address
        finally:
            with suppress(BlockingIOError):  # somebody else uses it, too, and it ends with that one
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                stop(home)


def environment(home: Home, address: Address) -> dict[str, str]:
    """The variables with which any AWS client, the SageMaker SDK too, speaks to the server.

    The SDK's own settings are a file: its default bucket, that it does not report to AWS what is run, and the role,
    which it could ask AWS's own STS only (its `get_execution_role` has that address built in).
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
    write_text(home.sdk_config, json.dumps(settings))  # JSON is YAML
    return {
        "AWS_ENDPOINT_URL": address.url,
        "AWS_ACCESS_KEY_ID": address.access_key_id,
        "AWS_SECRET_ACCESS_KEY": address.secret_access_key,
        "AWS_REGION": address.region,
        "AWS_DEFAULT_REGION": address.region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "SAGEMAKER_ROLE": address.role_arn,
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(home.sdk_config),
    }
