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
from microjobs_orchestrator.local.runtimes.process.environments import hold_file_lock
from tests.conftest import REPOSITORY
from tests.local.clients import LocalServer

ENVIRONMENTS = REPOSITORY / ".venv-clients"


def install_client_programs(client: str) -> Path:
    """Create a client's virtual environment if it does not exist; return its folder of programs, such as `python`.

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
    marker = folder / "complete"
    ENVIRONMENTS.mkdir(exist_ok=True)
    with hold_file_lock(folder.with_suffix(".lock")):  # the lock is necessary, because tests run in several processes
        if not marker.exists():
            for command in (
                ["venv", "--quiet", "--clear", "--python", "3.11", str(folder)],
                ["pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", str(lock)],
            ):
                subprocess.run([uv, *command], check=True)
            marker.touch()
    return python.parent


SLOW_MODULES = {
    "mlflow": ("mlflow", "mlflow.deployments", "mlflow.pyfunc"),
    "sdk": ("sagemaker", "sagemaker.experiments.run", "sagemaker.workflow.pipeline"),
    "sdk3": ("sagemaker.core.resources", "sagemaker.mlops.workflow.steps", "sagemaker.serve"),
}
"""Modules that the programs of a client use, and whose import takes seconds."""

CLIENT_WITH_FIXED_ADDRESS = "sdk3"
"""The client whose modules create boto3 clients when they are imported. These boto3 clients keep their address, so each
address of a local server needs a program server of its own."""

_program_servers: dict[tuple[str, ...], subprocess.Popen[str]] = {}
"""Program servers (see `program_server.py`) by client and settings, and by address for `CLIENT_WITH_FIXED_ADDRESS`."""


def run_program(
    client: str,
    server: LocalServer,
    folder: Path,
    script: str,
    *arguments: object,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Run a script with a client's Python, in the working directory `folder`; return the lines that it prints.

    Args:
        script: the name of a file in tests/clients, or an absolute path.
        settings: additional environment variables.
    """
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),  # this folder has neither settings nor credentials of the user
        "PYTHONPATH": f"{REPOSITORY / 'shared'}:{REPOSITORY}",
        **control.make_environment(server.home, server.address),
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
    key = client, server.address.url if client == CLIENT_WITH_FIXED_ADDRESS else "", *settings.values()
    if key not in _program_servers:
        _program_servers[key] = start_program_server(client, environment)
    try:
        code = send_program(_program_servers[key], program)
    except BaseException:  # after an error such as a timeout, the program still runs
        stop_program_server(_program_servers.pop(key))
        raise
    output_text, error_lines = output.read_text(), errors.read_text().splitlines()
    assert code == 0, output_text[-2000:] + "\n".join(line for line in error_lines if "INFO:" not in line)[-4000:]
    return output_text.splitlines()


def start_program_server(client: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("program_server.py")
    command = [
        str(install_client_programs(client) / "python"),
        "-W",
        "ignore",
        str(script),
        *SLOW_MODULES.get(client, ()),
    ]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def send_program(server: subprocess.Popen[str], program: Mapping[str, object]) -> int:
    """Send a program to a program server; wait for the program's end and return its exit code."""
    assert server.stdin is not None
    assert server.stdout is not None
    print(json.dumps(program), file=server.stdin, flush=True)
    exit_code_line = server.stdout.readline()
    assert exit_code_line, f"the program server ended with exit code {server.wait()}"
    return int(exit_code_line)


def stop_program_server(server: subprocess.Popen[str]) -> None:
    """Stop a program server and the program that it runs."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    with server:  # the context manager closes the server's pipes
        pass


@atexit.register
def _stop_program_servers() -> None:
    for server in _program_servers.values():
        stop_program_server(server)
