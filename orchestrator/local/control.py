"""Starts, finds and stops the server of a home."""

import fcntl
import hmac
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from microjobs.files import write_text
from microjobs_orchestrator.failures import LauncherError
from microjobs_orchestrator.local import home_lock, proof
from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.home import Home, read_file
from microjobs_orchestrator.local.identity import ACCOUNT, ROLE, get_default_bucket

logger = logging.getLogger(__name__)

START_SECONDS = 60.0
END_SECONDS = 60.0
ANSWER_SECONDS = 5.0
HANG_SECONDS = 15.0
"""A server that has served and gives no answer for this long is ended when another one is wanted."""
TERM_SECONDS = 10.0
"""Between SIGTERM and SIGKILL, for a server that does not answer."""
POLL_SECONDS = 0.05
MAX_ANSWER_BYTES = 4096

KNOWN = {"url": str, "region": str, "runtime": str, "why": str, "pid": int}
"""Members of `server.json`."""

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
    """The server that serves this folder, if it answers.

    Raises:
        HomeError: other users could have written what the folder says about the server.
        ServerError: something else answers at its address.
    """
    known = _read_known(home)
    if known is None or known["pid"] != home_lock.find(home):
        return None
    nonce = proof.make_nonce()
    answer = _ask(known["url"], nonce)
    if answer is None:
        return None
    port = known["url"].rpartition(":")[2]
    expected = proof.prove(home.server_key(), home.root, known["pid"], nonce, port)
    if not hmac.compare_digest(expected.encode(), str(answer.get("proof")).encode()):
        raise ServerError(
            f"what answers at {known['url']} does not know the secret of {home.root}: it is another program, or a "
            "server of an older version; run `microjobs local down`, then `microjobs local up`"
        )
    credentials = home.credentials()
    return Address(
        **known,
        access_key_id=credentials.access_key_id,
        secret_access_key=credentials.secret_access_key,
        bucket=get_default_bucket(known["region"]),
        role_arn=f"arn:aws:iam::{ACCOUNT}:role/{ROLE}",
    )


def _read_known(home: Home) -> dict[str, Any] | None:
    """What the server has written about itself; None if it has not, or if that was damaged."""
    if not os.path.lexists(home.root):
        return None
    home.check()
    try:
        known = json.loads(read_file(home.server))
    except (OSError, ValueError, RecursionError):  # there is none, or it ends right now
        return None
    if not isinstance(known, dict) or not all(isinstance(known.get(name), kind) for name, kind in KNOWN.items()):
        return None
    return {name: known[name] for name in KNOWN}


def _ask(url: str, nonce: str) -> dict[str, Any] | None:
    """The answer to a health check, empty if it makes no sense; None if there is none."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=ANSWER_SECONDS)  # not by a proxy
    with closing(connection):
        try:
            connection.request("GET", f"/health?nonce={nonce}")
            content = json.loads(connection.getresponse().read(MAX_ANSWER_BYTES))
        except (OSError, HTTPException):
            return None
        except ValueError:
            return {}
    return content if isinstance(content, dict) else {}


def find(home: Home) -> Address | None:
    """The server of this folder, to use it. Waits for one that starts or ends, and ends one that does not answer.

    Raises:
        HomeError, ServerError: as `running`.
    """
    began = time.monotonic()
    while (address := running(home)) is None and (pid := home_lock.find(home)) is not None:
        known = _read_known(home)
        patience = HANG_SECONDS if known and known["pid"] == pid else START_SECONDS
        if time.monotonic() - began > patience:
            logger.warning("the server, process %d, has not answered for %g s and is ended", pid, patience)
            _end(home, pid, TERM_SECONDS)
            return None
        time.sleep(POLL_SECONDS)
    return address


def why_not_running(home: Home) -> str:
    """What to tell a user whose command needs a server, when `running` found none."""
    if (pid := home_lock.find(home)) is None:
        return f"no server runs for {home.root}: `microjobs local up --detach` starts one"
    return (
        f"the server of {home.root}, process {pid}, does not answer: it starts, ends or hangs; try again, or end it "
        "with `microjobs local down`"
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
    command = [sys.executable, "-m", "microjobs_orchestrator.local", *config.arguments(), *(["--tied"] if tied else [])]
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
            time.sleep(POLL_SECONDS)
    except BaseException:  # Ctrl-C: a session of its own does not hear it
        process.terminate()
        raise
    process.terminate()
    try:
        process.wait(TERM_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    said = home.server_log.read_bytes()[begun:].decode(errors="replace").strip().splitlines()
    last = said[-1] if said else f"it said nothing within {START_SECONDS:g} s"
    raise ServerError(f"the server did not start: {last} (see {home.server_log})")


def stop(home: Home) -> bool:
    """End the server of this folder, with all that runs on it; False if there was none.

    A server that does not answer, or does not end, is killed.

    Raises:
        ServerError: it cannot be killed.
    """
    known = _read_known(home)
    if (pid := home_lock.find(home)) is None:
        if known is not None:
            home.server.unlink(missing_ok=True)  # of a server that was killed
        return False
    try:
        answers = running(home) is not None
    except LauncherError:  # whatever answers in its place, the process that holds the lock is the server
        answers = False
    _end(home, pid, END_SECONDS if answers else TERM_SECONDS)
    return True


def _end(home: Home, pid: int, seconds: float) -> None:
    """End the process that holds the lock, by force after some seconds."""
    _signal(pid, signal.SIGTERM)
    if _has_ended(home, pid, seconds):
        return
    logger.warning(
        "the server, process %d, did not end within %g s and was killed; the next one takes up what ran on it",
        *(pid, seconds),
    )
    _signal(pid, signal.SIGKILL)
    if not _has_ended(home, pid, TERM_SECONDS):
        raise ServerError(f"the server, process {pid}, cannot be killed: its disk or engine may hang; see `ps {pid}`")


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _has_ended(home: Home, pid: int, seconds: float) -> bool:
    """Wait until a server has ended, at most some seconds. One that was started here is waited for as a child, too."""
    deadline = time.monotonic() + seconds
    child = _started.get(pid)
    while (child.poll() is None) if child else (home_lock.find(home) == pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


@contextmanager
def serving(home: Home, config: Config) -> Iterator[Address]:
    """The server of this folder; if none runs, one for the time of the block, and of others that use it meanwhile."""
    home.make()
    with home.users.open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        address = find(home)
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
