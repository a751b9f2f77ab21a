"""Runs the server of the module `stub` in a separate process."""

import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.home import Home
from tests.local.clients import LocalServer
from tests.polling import wait_until


@contextmanager
def run_stub_server(folder: Path) -> Iterator[LocalServer]:
    """Run a local server whose runtime starts no hosts. Its home has two objects and one log stream."""
    home = Home(folder)
    home.create()
    for name, content in {"in/a.csv": "1\n2\n", "in/b": "b"}.items():
        (home.buckets / "fuzz" / name).parent.mkdir(parents=True, exist_ok=True)
        (home.buckets / "fuzz" / name).write_text(content)
    log_file = home.logs / "aws" / "sagemaker" / "TrainingJobs" / "seen" / "algo-1"
    log_file.parent.mkdir(parents=True)
    log_file.write_text("".join(f"{1_700_000_000_000 + number} line {number}\n" for number in range(500)))
    command = [sys.executable, "-m", "tests.local.security.stub", str(folder)]
    with (
        home.server_log.open("wb") as log,
        home.users.open("w") as users,
    ):
        fcntl.flock(users, fcntl.LOCK_SH)  # the server ends when no process has this lock
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_until(home.server_file.exists, bool)
            address = control.find_server(home)
            assert address is not None
            yield LocalServer(home, address)
        finally:
            process.send_signal(signal.SIGTERM)
            exit_code = process.wait(timeout=60)
        assert exit_code == 0
