"""Runs a user's own `train.py`, as AWS's framework images do.

The sagemaker-training toolkit unpacks the code, installs its requirements, and creates the arguments and the `SM_*`
variables. This module runs the command itself, because the toolkit would break long lines of output, import TensorFlow
only to know its exceptions, log all environment variables, and report a reason only for known errors. This module also
starts a script on several hosts as one job: the toolkit alone would run independent copies.
"""

import dataclasses
import importlib
import importlib.util
import logging
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from microjobs import source
from microjobs.contract import BASE_DIR_VARIABLE, Layout, ResourceConfig, read_training_resource_config
from microjobs.distributed import Program, count_gpus, launch, make_tf_program, make_torchrun_program
from microjobs.errors import JobError, PlatformError, ScriptFailedAfterStop, Stopped, UserError
from microjobs.interpreter import read_user_paths, take_python_variables
from microjobs.network import Network
from microjobs.stopping import stop_request

TAIL_BYTES = 16_384
"""Number of bytes at the end of the script's stderr that are kept, to find the reason of a failure."""
MAX_REASON_LINES = 20
DRAIN_SECONDS = 5.0
"""Seconds for reading stderr after the end of the script, because a process that the script has started may keep stderr
open."""
JOIN_SECONDS = 900.0
"""Seconds for which hosts wait for each other, because one host may need more time to install the requirements."""
GRACE_SECONDS = 10.0
"""Seconds between SIGTERM and SIGKILL for the script when the job ends because of another host."""

TORCH_SWITCH = "sagemaker_torch_distributed_enabled"
TENSORFLOW_SWITCH = "sagemaker_multi_worker_mirrored_strategy_enabled"
PACKAGES_BY_SWITCH = {TORCH_SWITCH: "torch", TENSORFLOW_SWITCH: "tensorflow"}
"""The SDK's switches for distributed training that this module supports, and the package that each switch needs."""
TORCHRUN_FAILURE_PATTERN = re.compile(r"^[EW]\d{4} .*torch/distributed/elastic/.*", re.MULTILINE)
"""Matches the first log line of torchrun about a script that failed; a traceback of torchrun follows."""
RANK_PREFIX_PATTERN = re.compile(r"^\[rank\d+\]: ", re.MULTILINE)
"""Matches PyTorch's prefix of each line of a traceback when there are several processes."""
TORCHRUN_CODE_PATTERN = re.compile(r"failed \(exitcode: (-?\d+)\)")
"""Matches the exit code of the script in torchrun's log."""

PIP_ERROR_PATTERN = re.compile(r"^\S+ ERROR: (.*)", re.MULTILINE)
"""Matches an error in pip's log, after the time."""
MAX_PIP_ERRORS = 3

TOOLKIT_MODULES = ("entry_point", "environment", "errors", "process")

CODE_ERRORS = (FileNotFoundError, ValueError, tarfile.TarError)
"""The toolkit's errors for missing or invalid configuration or code."""

logger = logging.getLogger("microjobs")


class ScriptError(JobError):
    """The user's script ended with an exit code other than 0. The job ends with 1, as in AWS's own images."""


def train(program: str) -> None:
    """Run the program that the request names, with the toolkit's arguments and environment.

    On one host, the program is in the job's process group of the operating system, so it receives stop signals itself
    and has the whole grace period. With a switch for distributed training, `launch` sends the signals to the program.

    Raises:
        UserError: the program does not exist, or its requirements cannot be installed.
        PlatformError: another host of the job did not start.
        ScriptError: the script failed; the reason is the end of its stderr.
        ScriptFailedAfterStop: the script failed after a stop signal.
    """
    layout = Layout.from_environment()
    # The toolkit reads this variable at its import. Without the variable, it may create a folder in the user's home.
    os.environ.setdefault(BASE_DIR_VARIABLE, str(layout.root))
    try:
        toolkit = {name: importlib.import_module(f"sagemaker_training.{name}") for name in TOOLKIT_MODULES}
    except ModuleNotFoundError as error:
        raise UserError(f"cannot run {program!r}: this image has no script mode ({error})") from error
    try:
        _run(layout, program, toolkit)
    except socket.gaierror as error:
        raise PlatformError(f"another host of the job did not start within 15 minutes: {error}") from error
    except (toolkit["errors"].ClientError, *CODE_ERRORS) as error:
        raise UserError(f"cannot run {program!r}: {error}") from error


def _run(layout: Layout, program: str, toolkit: dict[str, Any]) -> None:
    _configure_toolkit()
    environment = toolkit["environment"].Environment()
    # The toolkit sets an unknown region to "", which boto3 does not accept.
    os.environ["SAGEMAKER_REGION"] = os.environ.get("SAGEMAKER_REGION") or source.DEFAULT_REGION
    resources = read_training_resource_config(layout)
    switch = _choose_switch(environment.additional_framework_parameters, resources)
    if switch or len(resources.hosts) == 1 or Network.read().host_addresses:
        # This line skips the toolkit's check that all host names resolve, which takes up to 15 minutes. With a switch
        # for distributed training, the check is not needed, because the hosts wait for each other in `launch`. A single
        # host may have no network, and then cannot resolve its own name. On the process runtime, no host name resolves.
        os.environ.setdefault("SM_STUDIO_LOCAL_MODE", "True")
    for folder in (layout.model, layout.output_data):  # these folders also exist in AWS's images
        folder.mkdir(parents=True, exist_ok=True)
    code = Path(toolkit["environment"].code_dir)
    command = _install(layout, program, toolkit, environment, code)
    if switch is None:
        _execute(program, command, code)
    else:
        _execute_on_all_hosts(program, _make_program(switch, resources, command), resources, code)


def _install(layout: Layout, program: str, toolkit: dict[str, Any], environment: Any, code: Path) -> list[str]:
    """Install the program and its requirements, set the environment variables, and return the command."""
    arguments, variables = environment.to_cmd_args(), environment.to_env_vars()
    paths, python_variables = read_user_paths(), take_python_variables(os.environ)

    class Runner(toolkit["process"].ProcessRunner):  # type: ignore[misc]  # the import determines the base class
        def run(self, *_: object, **__: object) -> None:
            """Do nothing when `entry_point.run` calls this method: `_run` runs the program later."""

    os.environ["PYTHONSAFEPATH"] = "1"  # with this variable, pip does not import modules of the user's code
    with tempfile.TemporaryDirectory(prefix="code-") as work:
        os.environ["PIP_LOG"] = log = f"{work}/pip.log"
        try:
            toolkit["entry_point"].run(
                uri=_locate_code(layout, code, environment.module_dir, Path(work)),
                user_entry_point=program,
                args=arguments,
                env_vars=variables,
                runner_type=Runner(program, arguments, variables, processes_per_host=1),
            )
        except (toolkit["errors"].InstallRequirementsError, toolkit["errors"].InstallModuleError) as error:
            reason = _read_pip_errors(Path(log)) or "see pip's lines in the log"
            raise UserError(f"the requirements of {program!r} cannot be installed: {reason}") from error
    for name in ("PIP_LOG", "PYTHONSAFEPATH"):
        del os.environ[name]
    if not (code / program).exists() and not (code / "setup.py").exists():
        names = ", ".join(sorted(path.name for path in code.iterdir())) or "nothing"
        raise UserError(f"sagemaker_program {program!r} is not in the code, which contains {names}")
    # This line replaces the toolkit's PYTHONPATH, which contains the folders of the job's own interpreter.
    os.environ.update(python_variables | {"PYTHONPATH": os.pathsep.join([str(code), *paths])})
    return _make_command(code, program, arguments)


def _read_pip_errors(log: Path) -> str:
    """Return the last errors in pip's log, which name the requirement; an empty text if there are none."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return "; ".join(PIP_ERROR_PATTERN.findall(text)[-MAX_PIP_ERRORS:])


def _make_command(code: Path, program: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that AWS's images would use in the folder `code`. It runs a Python package, a Python script,
    or another file in a shell.

    Args:
        program: the name of a file in the folder, which the toolkit has checked.
    """
    if not program.endswith(".sh"):
        if (code / "setup.py").exists():
            return [sys.executable, "-m", program.removesuffix(".py"), *arguments]
        if program.endswith(".py"):
            return [sys.executable, "--", program, *arguments]
    return ["/bin/sh", "-c", f"./{shlex.quote(program)} {shlex.join(arguments)}"]


def _locate_code(layout: Layout, code: Path, uri: str, work: Path) -> str:
    """Return the local path of the code. Files in the toolkit's folder `code` have priority over `uri`."""
    if code.is_dir() and any(code.iterdir()):
        return str(code)
    return str(source.locate(layout, uri, "sagemaker_submit_directory", work))


def _configure_toolkit() -> None:
    # at the level INFO, these loggers log each value and step
    for name in ("sagemaker-training-toolkit", "sagemaker_training"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # pip warns that it runs as root and that the image's pip is old. The author of the script can change neither.
    os.environ.setdefault("PIP_ROOT_USER_ACTION", "ignore")
    os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")


def _choose_switch(parameters: Mapping[str, object], resources: ResourceConfig) -> str | None:
    """Return the request's switch for distributed training; None if each host runs the script independently.

    Raises:
        UserError: the image does not support the switch, the request has several switches, or the switch excludes some
            hosts.
    """
    switches = [name for name, value in parameters.items() if name.endswith("_enabled") and value is True]
    for name in switches:
        if name not in PACKAGES_BY_SWITCH:
            raise UserError(f"{name} is not supported: this image supports {', '.join(PACKAGES_BY_SWITCH)}")
        if importlib.util.find_spec(package := PACKAGES_BY_SWITCH[name]) is None:
            raise UserError(f"{name} needs {package}, which this image does not have: use an image that contains it")
    if len(switches) > 1:
        raise UserError(f"{' and '.join(switches)} exclude each other: remove one")
    groups = parameters.get("sagemaker_distribution_instance_groups")
    if switches and isinstance(groups, list) and not {group.name for group in resources.groups} <= set(groups):
        raise UserError(f"sagemaker_distribution_instance_groups {groups} must name all instance groups of the job")
    return switches[0] if switches else None


def _make_program(switch: str, resources: ResourceConfig, command: Sequence[str]) -> Program:
    """Return the program that runs the script's command together with the other hosts."""
    if switch == TENSORFLOW_SWITCH:
        return make_tf_program(resources, command)
    arguments = ["--no-python", *command]
    if command[0] == sys.executable:
        arguments = [*command[2 if command[1] == "--" else 1 :]]
    return make_torchrun_program(resources, max(1, count_gpus()), arguments)


def _execute(script_name: str, command: Sequence[str], cwd: Path) -> None:
    logger.info("script mode: %s", " ".join(command))
    with stop_request() as stop:
        process = subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE)
        stderr_reader = StderrReader(process)
        if stop.signal_number is not None:  # the signal arrived before the script started
            process.send_signal(stop.signal_number)
        code = process.wait()
        stderr = stderr_reader.read()
    if code != 0 and stop.signal_number is not None:
        raise ScriptFailedAfterStop(stop.signal_number)
    if code != 0:
        raise ScriptError(format_reason(script_name, code, stderr))


def _execute_on_all_hosts(script_name: str, program: Program, resources: ResourceConfig, cwd: Path) -> None:
    """Run this host's part of the script. All hosts end in the same way."""
    logger.info("script mode on %d hosts: %s", len(resources.hosts), " ".join(program.command))
    readers: list[StderrReader] = []  # it has one item as soon as the process has started
    try:
        launch(
            dataclasses.replace(program, cwd=cwd, stderr=subprocess.PIPE, grace_seconds=GRACE_SECONDS),
            resources,
            explain=lambda code: _explain(script_name, code, readers[0].read()),
            on_start=lambda process: readers.append(StderrReader(process)),
            join_seconds=JOIN_SECONDS,
        )
    except Stopped as stopped:
        raise ScriptFailedAfterStop(stopped.signal_number) from None


def _explain(script_name: str, code: int, stderr: str) -> tuple[int, str]:
    """Return the script's own exit code and the reason, without the output of torchrun."""
    if (torchrun_output := TORCHRUN_FAILURE_PATTERN.search(stderr)) is not None:
        start = torchrun_output.start()
        exit_code = TORCHRUN_CODE_PATTERN.search(stderr, start)
        code, stderr = int(exit_code[1]) if exit_code else code, stderr[:start]
    return code, format_reason(script_name, code, RANK_PREFIX_PATTERN.sub("", stderr))


class StderrReader:
    """Copies a script's stderr to this process's stderr without delay, and keeps the last TAIL_BYTES of it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._tail = bytearray()
        self._thread = threading.Thread(target=self._copy, args=(process.stderr,), daemon=True)
        self._thread.start()

    def read(self) -> str:
        """Return the end of the output. Call this method when the script has ended."""
        self._thread.join(DRAIN_SECONDS)
        return self._tail.decode(errors="replace")

    def _copy(self, stderr: IO[bytes]) -> None:
        with stderr:
            for chunk in iter(lambda: os.read(stderr.fileno(), TAIL_BYTES), b""):
                sys.stderr.buffer.write(chunk)
                sys.stderr.buffer.flush()
                self._tail += chunk
                del self._tail[:-TAIL_BYTES]


def format_reason(script_name: str, code: int, stderr: str) -> str:
    """Return a reason that starts with the last line of stderr, because FailureReason is cut after 1024 characters."""
    cause = f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
    if code == -signal.SIGKILL:
        cause += ", most likely out of memory"
    lines = [line for line in stderr.splitlines() if line.strip()][-MAX_REASON_LINES:]
    last_line = lines[-1].strip() if lines else "it wrote nothing to stderr; see the log"
    return "\n".join([f"{script_name} failed: {last_line} ({cause})", *lines])
