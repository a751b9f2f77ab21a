"""A debugger for one job, if the Environment of the request has the variable MICROJOBS_DEBUG_PORT.

The first host gets debugpy and a module `sitecustomize` (see `local/debug_hook`), which Python imports before the
user's script. The port of the debugger is published on the loopback address of the engine's machine.
"""

import importlib
import importlib.util
import re
import shutil
from dataclasses import replace
from pathlib import Path

from microjobs.contract import DEFAULT_ROOT
from microjobs_orchestrator.local import debug_hook
from microjobs_orchestrator.local.config import MAX_PORT
from microjobs_orchestrator.local.runtimes.base import CannotRunError, HostPlan, Plan

PORT_VARIABLE = "MICROJOBS_DEBUG_PORT"
"""Variable of the request with the port."""
ADDRESS_VARIABLE = "MICROJOBS_DEBUG_ADDRESS"
"""Variable with the address on which the debugger listens in the host. The module `sitecustomize` reads it."""
FOLDER_NAME = "debug"
"""A folder in the contract's root, which only hosts with a debugger have."""
MIN_PORT = 1024
LOOPBACK = "127.0.0.1"
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104  the engine publishes the port of a container on loopback only


def add_debugger(plan: Plan, runtime_name: str) -> Plan:
    """Return a plan whose first host waits for a debugger, if the request asks for one.

    Raises:
        CannotRunError: the port is invalid, the hosts cannot have a port, or debugpy is not installed.
    """
    first_host = plan.hosts[0]
    if PORT_VARIABLE not in first_host.environment:
        return plan
    port = _parse_port(first_host.environment[PORT_VARIABLE])
    if plan.isolated or plan.is_server:
        refused = "jobs with EnableNetworkIsolation" if plan.isolated else "endpoints and transform jobs"
        raise CannotRunError(f"{PORT_VARIABLE} is set, but {refused} have no port for a debugger: remove the variable")
    _copy_debugger(first_host.files / FOLDER_NAME)
    address = LOOPBACK if runtime_name == "process" else EVERY_ADDRESS
    debugged_host = replace(
        first_host,
        published_ports=(port,),
        python_path=f"{DEFAULT_ROOT}/{FOLDER_NAME}",
        environment={**first_host.environment, ADDRESS_VARIABLE: f"{address}:{port}"},
    )
    return replace(plan, hosts=(debugged_host, *plan.hosts[1:]))


def describe_debugger(host: HostPlan) -> str | None:
    """Return a sentence for the log of a host about its debugger; None if the host has no debugger."""
    if not host.published_ports:
        return None
    address = f"{LOOPBACK}:{host.published_ports[0]}"
    return f"the first Python script of this job waits until a debugger connects to {address} ({PORT_VARIABLE})"


def _parse_port(text: str) -> int:
    if not re.fullmatch("[0-9]{4,5}", text) or not MIN_PORT <= int(text) <= MAX_PORT:
        raise CannotRunError(f"{PORT_VARIABLE} {text[:40]!r} is not a port: use a number from {MIN_PORT} to {MAX_PORT}")
    return int(text)


def _copy_debugger(folder: Path) -> None:
    importlib.invalidate_caches()  # debugpy may have been installed since the server's start
    spec = importlib.util.find_spec("debugpy")
    if spec is None or not spec.submodule_search_locations:
        raise CannotRunError(
            f"{PORT_VARIABLE} needs debugpy in the environment of the server: run `pip install debugpy` there, and "
            "start the job again"
        )
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(debug_hook.__path__[0], folder, ignore=ignored)
    shutil.copytree(spec.submodule_search_locations[0], folder / "debugpy", ignore=ignored)
