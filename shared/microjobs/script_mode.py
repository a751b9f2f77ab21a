"""Runs a user's own `train.py`, as AWS's framework images do.

The sagemaker-training toolkit unpacks the code, installs its requirements, and creates the arguments and the `SM_*`
variables. This module runs the command, because the toolkit breaks long lines of output, imports TensorFlow to know its
exceptions, logs the whole environment, and reports a reason only for known errors. This module also starts a script on
several hosts as one job: the toolkit alone would run independent copies.
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
from microjobs.contract import BASE_DIR, Layout, ResourceConfig, read_training_resource_config
from microjobs.distributed import Program, count_gpus, launch, make_tf_program, make_torchrun_program
from microjobs.errors import JobError, PlatformError, ScriptStopped, Stopped, UserError
from microjobs.interpreter import read_user_paths, take_python_variables
from microjobs.stopping import stop_request

TAIL_BYTES = 16_384
"""Number of bytes at the end of the script's stderr that are kept, to find the reason of a failure."""
REASON_LINES = 20
DRAIN_SECONDS = 5.0
"""Time limit for reading stderr after the end of the script: a process that the script started may keep it open."""
JOIN_SECONDS = 900.0
"""Time for which hosts wait for each other: the requirements may take longer to install on one host."""
SAVE_SECONDS = 10.0
"""Time between SIGTERM and SIGKILL for the script when the job ends because of another host."""

TORCH = "sagemaker_torch_distributed_enabled"
TENSORFLOW = "sagemaker_multi_worker_mirrored_strategy_enabled"
PACKAGES = {TORCH: "torch", TENSORFLOW: "tensorflow"}
"""The SDK's switches for distributed training that this module supports, and the package that each switch needs."""
TORCHRUN = re.compile(r"^[EW]\d{4} .*torch/distributed/elastic/.*", re.MULTILINE)
"""Matches the first log line of torchrun about a script that failed; a traceback of torchrun follows."""
RANK = re.compile(r"^\[rank\d+\]: ", re.MULTILINE)
"""Matches PyTorch's prefix of each line of a traceback when there are several processes."""
TORCHRUN_CODE = re.compile(r"failed \(exitcode: (-?\d+)\)")

TOOLKIT_MODULES = ("entry_point", "environment", "errors", "process")

CODE_ERRORS = (FileNotFoundError, ValueError, tarfile.TarError)
"""The toolkit's errors for missing or invalid configuration or code."""

logger = logging.getLogger("microjobs")


class ScriptError(JobError):
    """The user's script ended with an exit code other than 0. The job ends with 1, as in AWS's own images."""


def train(program: str) -> None:
    """Run the program that the request names, with the toolkit's arguments and environment.

    The script is in the process group of the job, so it gets stop signals and has the whole grace period.

    Raises:
        UserError: the program does not exist, or its requirements cannot be installed.
        PlatformError: another host of the job did not start.
        ScriptError: the script failed; the reason is the end of its stderr.
        ScriptStopped: the script failed after a stop signal.
    """
    layout = Layout.from_environment()
    # The toolkit reads this variable at its import. Without the variable, it may create a folder in the user's home.
    os.environ.setdefault(BASE_DIR, str(layout.root))
    try:
        toolkit = {name: importlib.import_module(f"sagemaker_training.{name}") for name in TOOLKIT_MODULES}
    except ModuleNotFoundError as error:
        raise UserError(f"cannot run {program!r}: this image has no script mode ({error})") from error
    try:
        _run(layout, program, toolkit)
    except socket.gaierror as error:
        raise PlatformError(f"another host of the job did not start within 15 minutes: {error}") from error
    except (toolkit["errors"].InstallRequirementsError, toolkit["errors"].InstallModuleError) as error:
        raise UserError(f"the requirements of {program!r} cannot be installed: see pip's lines in the log") from error
    except (toolkit["errors"].ClientError, *CODE_ERRORS) as error:
        raise UserError(f"cannot run {program!r}: {error}") from error


def _run(layout: Layout, program: str, toolkit: dict[str, Any]) -> None:
    _configure_toolkit()
    environment = toolkit["environment"].Environment()
    # The toolkit sets an unknown region to "", which boto3 does not accept.
    os.environ["SAGEMAKER_REGION"] = os.environ.get("SAGEMAKER_REGION") or source.DEFAULT_REGION
    resources = read_training_resource_config(layout)
    switch = _choose_switch(environment.additional_framework_parameters, resources)
    if switch or len(resources.hosts) == 1:
        # Skips the toolkit's check that all host names resolve, which takes up to 15 minutes. A host without a network
        # cannot resolve its own name, and hosts with a switch wait for each other in `launch`.
        os.environ.setdefault("SM_STUDIO_LOCAL_MODE", "True")
    for folder in (layout.model, layout.output_data):  # exist in AWS's images too
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

    class Runner(toolkit["process"].ProcessRunner):  # type: ignore[misc]  # known only after the import
        def run(self, *_: object, **__: object) -> None:
            """Do nothing when `entry_point.run` calls this method: `_run` runs the program later."""

    os.environ["PYTHONSAFEPATH"] = "1"  # for pip, which must not import modules of the user's code
    with tempfile.TemporaryDirectory(prefix="code-") as work:
        toolkit["entry_point"].run(
            uri=_locate_code(layout, code, environment.module_dir, Path(work)),
            user_entry_point=program,
            args=arguments,
            env_vars=variables,
            runner_type=Runner(program, arguments, variables, processes_per_host=1),
        )
    del os.environ["PYTHONSAFEPATH"]
    if not (code / program).exists() and not (code / "setup.py").exists():
        names = ", ".join(sorted(path.name for path in code.iterdir())) or "nothing"
        raise UserError(f"sagemaker_program {program!r} is not in the code, which contains {names}")
    # Replaces the toolkit's PYTHONPATH, which contains the folders of the job's own interpreter.
    os.environ.update(python_variables | {"PYTHONPATH": os.pathsep.join([str(code), *paths])})
    return _make_command(code, program, arguments)


def _make_command(code: Path, program: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that AWS's images would run in the folder `code`: a package, a Python script, or a shell.

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
    """Return the local path of the code. Files in the toolkit's folder `code` have priority over the address."""
    if code.is_dir() and any(code.iterdir()):
        return str(code)
    return str(source.locate(layout, uri, "sagemaker_submit_directory", work))


def _configure_toolkit() -> None:
    for name in ("sagemaker-training-toolkit", "sagemaker_training"):  # at INFO, they log each value and step
        logging.getLogger(name).setLevel(logging.WARNING)
    # pip's warnings are about the container's user and the image's pip, which the user cannot change.
    os.environ.setdefault("PIP_ROOT_USER_ACTION", "ignore")
    os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")


def _choose_switch(parameters: Mapping[str, object], resources: ResourceConfig) -> str | None:
    """Return the request's switch for distributed training; None if each host runs the script independently.

    Raises:
        UserError: the image does not support the switch, or the switch excludes some hosts.
    """
    switches = [name for name, value in parameters.items() if name.endswith("_enabled") and value is True]
    for name in switches:
        if name not in PACKAGES:
            raise UserError(f"{name} is not supported: this image supports {', '.join(PACKAGES)}")
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise UserError(f"{name} needs {PACKAGES[name]}, which this image does not have: use the other trainer")
    if len(switches) > 1:
        raise UserError(f"{' and '.join(switches)} exclude each other: remove one")
    groups = parameters.get("sagemaker_distribution_instance_groups")
    if switches and isinstance(groups, list) and not {group.name for group in resources.groups} <= set(groups):
        raise UserError(f"sagemaker_distribution_instance_groups {groups} must name all instance groups of the job")
    return switches[0] if switches else None


def _make_program(switch: str, resources: ResourceConfig, command: Sequence[str]) -> Program:
    """Return the program that runs the script's command together with the other hosts."""
    if switch == TENSORFLOW:
        return make_tf_program(resources, command)
    arguments = ["--no-python", *command]
    if command[0] == sys.executable:
        arguments = [*command[2 if command[1] == "--" else 1 :]]
    return make_torchrun_program(resources, max(1, count_gpus()), arguments)


def _execute(program: str, command: Sequence[str], cwd: Path) -> None:
    logger.info("script mode: %s", " ".join(command))
    with stop_request() as stop:
        process = subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE)
        tail = Tail(process)
        if stop.signal_number is not None:  # the signal arrived before the script started
            process.send_signal(stop.signal_number)
        code = process.wait()
        stderr = tail.read()
    if code != 0 and stop.signal_number is not None:
        raise ScriptStopped(stop.signal_number)
    if code != 0:
        raise ScriptError(format_reason(program, code, stderr))


def _execute_on_all_hosts(name: str, program: Program, resources: ResourceConfig, cwd: Path) -> None:
    """Run this host's part of the script. All hosts end in the same way."""
    logger.info("script mode on %d hosts: %s", len(resources.hosts), " ".join(program.command))
    tails: list[Tail] = []
    try:
        launch(
            dataclasses.replace(program, cwd=cwd, stderr=subprocess.PIPE, grace=SAVE_SECONDS),
            resources,
            explain=lambda code: _explain(name, code, tails[0].read()),
            on_start=lambda process: tails.append(Tail(process)),
            join_seconds=JOIN_SECONDS,
        )
    except Stopped as stopped:
        raise ScriptStopped(stopped.signal_number) from None


def _explain(name: str, code: int, stderr: str) -> tuple[int, str]:
    """Return the script's own exit code and the reason, without the output of torchrun."""
    if (torchrun_output := TORCHRUN.search(stderr)) is not None:
        start = torchrun_output.start()
        exit_code = TORCHRUN_CODE.search(stderr, start)
        code, stderr = int(exit_code[1]) if exit_code else code, stderr[:start]
    return code, format_reason(name, code, RANK.sub("", stderr))


class Tail:
    """Copies a script's stderr to this process's stderr without delay, and keeps its end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._end = bytearray()
        self._reader = threading.Thread(target=self._copy, args=(process.stderr,), daemon=True)
        self._reader.start()

    def read(self) -> str:
        """Return the end of the output. Call this when the script has ended."""
        self._reader.join(DRAIN_SECONDS)
        return self._end.decode(errors="replace")

    def _copy(self, stderr: IO[bytes]) -> None:
        with stderr:
            for chunk in iter(lambda: os.read(stderr.fileno(), TAIL_BYTES), b""):
                sys.stderr.buffer.write(chunk)
                sys.stderr.buffer.flush()
                self._end += chunk
                del self._end[:-TAIL_BYTES]


def format_reason(program: str, code: int, stderr: str) -> str:
    """Return a reason that starts with the script's last line, because FailureReason is cut after 1024 characters."""
    ending = f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
    if code == -signal.SIGKILL:
        ending += ", most likely out of memory"
    lines = [line for line in stderr.splitlines() if line.strip()][-REASON_LINES:]
    last = lines[-1].strip() if lines else "it wrote nothing to stderr; see the log"
    return "\n".join([f"{program} failed: {last} ({ending})", *lines])
