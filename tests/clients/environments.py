"""Virtual environments for clients, one per client, created from locks with hashes and kept between runs."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.runtimes.process.environments import locked_file
from tests.conftest import REPOSITORY
from tests.local.clients import LocalServer

ENVIRONMENTS = REPOSITORY / ".venv-clients"


def client_programs(client: str) -> Path:
    """Return the folder with the programs of a client's environment, such as `python`. Clients: `sdk`, `aws`, …"""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed: it creates the virtual environments of clients")
    lock = Path(__file__).with_name(f"{client}.lock")
    folder = ENVIRONMENTS / f"{client}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    done = folder / "complete"
    ENVIRONMENTS.mkdir(exist_ok=True)
    with locked_file(folder.with_suffix(".lock")):  # tests run in several processes
        if not done.exists():
            for command in (
                ["venv", "--quiet", "--clear", "--python", "3.11", str(folder)],
                ["pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", str(lock)],
            ):
                subprocess.run([uv, *command], check=True)
            done.touch()
    return python.parent


def run_program(client: str, local: LocalServer, folder: Path, script: str, *arguments: object) -> list[str]:
    """Run a script with a client's Python, with `folder` as working directory. Return its output.

    Args:
        script: the name of a file of this folder, or an absolute path.
    """
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),  # without the user's settings and credentials
        "PYTHONPATH": str(REPOSITORY / "shared"),
        **control.make_environment(local.home, local.address),
    }
    command = [client_programs(client) / "python", "-W", "ignore", Path(__file__).parent / script, *arguments]
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    errors = [line for line in done.stderr.splitlines() if "INFO:" not in line]
    assert done.returncode == 0, done.stdout[-2000:] + "\n".join(errors)[-4000:]
    return done.stdout.splitlines()
