"""Virtual environments for clients, one per client, created from locks with hashes and kept between runs."""

import atexit
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.runtimes.process.environments import locked_file
from tests.conftest import REPOSITORY
from tests.local.clients import LocalServer

ENVIRONMENTS = REPOSITORY / ".venv-clients"


def client_programs(client: str) -> Path:
    """Return the folder with the programs of a client's environment, such as `python`.

    Clients: `sdk`, `aws`, …; `boto3` is the environment of the tests.
    """
    if client == "boto3":
        return Path(sys.executable).parent
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


LIBRARIES = {
    "sdk": ("sagemaker", "sagemaker.experiments.run", "sagemaker.workflow.pipeline"),
    "sdk3": ("sagemaker.core.resources", "sagemaker.mlops.workflow.steps", "sagemaker.serve"),
}
"""Modules that the programs of a client import, and that take long to import."""

_servers: dict[tuple[str, ...], subprocess.Popen[str]] = {}
"""Servers that run programs, by client, address and settings: version 3 of the SDK creates AWS clients while it is
imported."""


def run_program(
    client: str,
    local: LocalServer,
    folder: Path,
    script: str,
    *arguments: object,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Run a script with a client's Python, with `folder` as working directory. Return its output.

    Args:
        script: the name of a file of this folder, or an absolute path.
        settings: further variables.
    """
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),  # without the user's settings and credentials
        "PYTHONPATH": f"{REPOSITORY / 'shared'}:{REPOSITORY}",
        **control.make_environment(local.home, local.address),
        **settings,
    }
    output, errors = folder / f"{client}.out", folder / f"{client}.err"
    program = {
        "folder": str(folder),
        "environment": environment,
        "command": list(map(str, [Path(__file__).parent / script, *arguments])),
        "output": str(output),
        "errors": str(errors),
    }
    key = client, local.address.url, *settings.values()
    if key not in _servers:
        _servers[key] = start_program_server(client, environment)
    try:
        code = send_program(_servers[key], program)
    except BaseException:  # such as a timeout: the program still runs
        stop_program_server(_servers.pop(key))
        raise
    printed, problems = output.read_text(), errors.read_text().splitlines()
    assert code == 0, printed[-2000:] + "\n".join(line for line in problems if "INFO:" not in line)[-4000:]
    return printed.splitlines()


def start_program_server(client: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("program_server.py")
    command = [str(client_programs(client) / "python"), "-W", "ignore", str(script), *LIBRARIES.get(client, ())]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def send_program(server: subprocess.Popen[str], program: Mapping[str, object]) -> int:
    """Send a program to a server; return its exit code."""
    assert server.stdin is not None
    assert server.stdout is not None
    print(json.dumps(program), file=server.stdin, flush=True)
    result = server.stdout.readline()
    assert result, f"the server of programs ended with exit code {server.wait()}"
    return int(result)


def stop_program_server(server: subprocess.Popen[str]) -> None:
    """Stop a server, and the program that it runs."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    with server:  # closes its pipes
        pass


@atexit.register
def _stop_program_servers() -> None:
    for server in _servers.values():
        stop_program_server(server)
