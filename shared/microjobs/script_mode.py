"""Runs a user's own `train.py`, as AWS's framework images do.

The sagemaker-training toolkit unpacks the code, installs its requirements, and makes the arguments and the SM_*
variables. This module runs the command, because the toolkit splits lines at the end of a block of output, imports
TensorFlow for the names of its exceptions, logs the whole environment, and reports a reason only for known errors.
This module also starts a script on several hosts as one job: the toolkit alone would run independent copies.
"""

import dataclasses
import importlib
import importlib.util
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from microjobs import source
from microjobs.contract import BASE_DIR, Layout, ResourceConfig, read_training_resource_config
from microjobs.distributed import Program, gpu_count, launch, torchrun, with_tf_config
from microjobs.errors import JobError, PlatformError, ScriptStopped, Stopped, UserError
from microjobs.interpreter import take_python_variables, user_paths
from microjobs.stopping import stop_request

TAIL_BYTES = 16_384
"""The end of the script's stderr that is kept for the reason of a failure."""
REASON_LINES = 20
DRAIN_SECONDS = 5.0
"""What stderr is read for after the script's end, when a process that it left behind holds it open."""

JOIN_SECONDS = 900.0
"""How long hosts wait for each other: their scripts' requirements may take longer to install on one of them."""
SAVE_SECONDS = 10.0
"""What a script gets to end itself, after SIGTERM, when the job ends because of another host."""

TORCH = "sagemaker_torch_distributed_enabled"
TENSORFLOW = "sagemaker_multi_worker_mirrored_strategy_enabled"
PACKAGES = {TORCH: "torch", TENSORFLOW: "tensorflow"}
"""The SDK's switches that are ours to start, and what they need."""
TORCHRUN = re.compile(r"^[EW]\d{4} .*torch/distributed/elastic/.*", re.MULTILINE)
"""What torchrun logs about a script that failed, before a traceback of its own."""
RANK = re.compile(r"^\[rank\d+\]: ", re.MULTILINE)
"""What PyTorch puts before each line of a traceback when there are several processes."""
TORCHRUN_CODE = re.compile(r"failed \(exitcode: (-?\d+)\)")

TOOLKIT = ("entry_point", "environment", "errors", "process")

UNUSABLE = (FileNotFoundError, ValueError, tarfile.TarError)
"""What the toolkit lets through when configuration or code is missing or not what it should be."""

logger = logging.getLogger("microjobs")


class ScriptError(JobError):
    """The user's script ended with an exit code other than 0. The job ends with 1, as in AWS's own images."""


def train(program: str) -> None:
    """Run the program that the request names, with the toolkit's arguments and environment.

    The script is in our process group, so a stop signal reaches it; it has the whole grace period to save its work.

    Raises:
        UserError: the program cannot be had, or its requirements not be installed.
        PlatformError: another host of the job does not appear.
        ScriptError: it ended with an error; the end of its stderr is the reason.
        ScriptStopped: it ended with an error after a stop signal.
    """
    layout = Layout.from_environment()
    # The toolkit looks at this when it is imported, and makes a folder in the user's home if it is not there.
    os.environ.setdefault(BASE_DIR, str(layout.root))
    try:
        toolkit = {name: importlib.import_module(f"sagemaker_training.{name}") for name in TOOLKIT}
    except ModuleNotFoundError as error:
        raise UserError(f"cannot run {program!r}: this image has no script mode ({error})") from error
    try:
        _run(layout, program, toolkit)
    except socket.gaierror as error:
        raise PlatformError(f"another host of the job did not appear within 15 minutes: {error}") from error
    except (toolkit["errors"].InstallRequirementsError, toolkit["errors"].InstallModuleError) as error:
        raise UserError(f"what {program!r} requires could not be installed: see pip's lines in the log") from error
    except (toolkit["errors"].ClientError, *UNUSABLE) as error:
        raise UserError(f"cannot run {program!r}: {error}") from error


def _run(layout: Layout, program: str, toolkit: dict[str, Any]) -> None:
    _settle()
    environment = toolkit["environment"].Environment()
    # It sets the region to "" if it knows none, and boto3 takes that for one.
    os.environ["SAGEMAKER_REGION"] = os.environ.get("SAGEMAKER_REGION") or source.DEFAULT_REGION
    resources = read_training_resource_config(layout)
    switch = _distribution(environment.additional_framework_parameters, resources)
    if switch or len(resources.hosts) == 1:
        # Otherwise it waits up to 15 minutes for all names to resolve; outside a network its own never does, and
        # several hosts that work together wait for each other later.
        os.environ.setdefault("SM_STUDIO_LOCAL_MODE", "True")
    for folder in (layout.model, layout.output_data):  # AWS's images promise them to the script
        folder.mkdir(parents=True, exist_ok=True)
    arguments, variables = environment.to_cmd_args(), environment.to_env_vars()
    paths, users = user_paths(), take_python_variables(os.environ)
    os.environ["PYTHONSAFEPATH"] = "1"  # until the script starts: pip must not import modules of the code's folder

    def run(command: Sequence[str], code: Path) -> None:
        del os.environ["PYTHONSAFEPATH"]
        # The toolkit has written the folders of our own interpreter into PYTHONPATH.
        os.environ.update(users | {"PYTHONPATH": os.pathsep.join([str(code), *paths])})
        if switch is None:
            _execute(program, command, code)
        else:
            _execute_everywhere(program, _everywhere(switch, resources, command), resources, code)

    with tempfile.TemporaryDirectory(prefix="code-") as work:
        toolkit["entry_point"].run(
            uri=_source(layout, toolkit, environment.module_dir, Path(work)),
            user_entry_point=program,
            args=arguments,
            env_vars=variables,
            runner_type=_runner(toolkit, program, arguments, variables, run),
        )


def _source(layout: Layout, toolkit: dict[str, Any], uri: str, work: Path) -> str:
    """Where the toolkit finds the code on this machine; what is in its folder already outranks the address."""
    code = Path(toolkit["environment"].code_dir)
    if code.is_dir() and any(code.iterdir()):
        return str(code)
    return str(source.locate(layout, uri, "sagemaker_submit_directory", work))


def _settle() -> None:
    for chatty in ("sagemaker-training-toolkit", "sagemaker_training"):  # at INFO they report each value and step
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # pip's remarks are not the user's to act on: the container is root's, and the image chose its pip.
    os.environ.setdefault("PIP_ROOT_USER_ACTION", "ignore")
    os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")


def _distribution(parameters: Mapping[str, object], resources: ResourceConfig) -> str | None:
    """The switch that says how hosts work together; None where each runs the script for itself.

    Raises:
        UserError: a switch that this image does not have, or that only some of the hosts are to follow.
    """
    asked = [name for name, value in parameters.items() if name.endswith("_enabled") and value is True]
    for name in asked:
        if name not in PACKAGES:
            known = ", ".join(PACKAGES)
            raise UserError(f"{name} asks for a distribution that this image does not start; it starts {known}")
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise UserError(f"{name} needs {PACKAGES[name]}, which this image does not have: take the other trainer's")
    if len(asked) > 1:
        raise UserError(f"{' and '.join(asked)} exclude each other: keep one")
    groups = parameters.get("sagemaker_distribution_instance_groups")
    if asked and isinstance(groups, list) and not {group.name for group in resources.groups} <= set(groups):
        raise UserError(f"sagemaker_distribution_instance_groups {groups} leaves hosts out: name all instance groups")
    return asked[0] if asked else None


def _everywhere(switch: str, resources: ResourceConfig, command: Sequence[str]) -> Program:
    """The script's command as a program that works together with the other hosts'."""
    if switch == TENSORFLOW:
        return with_tf_config(resources, command)
    if command[0] == sys.executable:
        arguments = [*command[1:]]
        if arguments[0] == "--":
            del arguments[0]
    else:
        arguments = ["--no-python", *command]
    return torchrun(resources, max(1, gpu_count()), arguments)


def _runner(
    toolkit: dict[str, Any],
    program: str,
    arguments: Sequence[str],
    variables: dict[str, str],
    run: Callable[[Sequence[str], Path], None],
) -> Any:
    """What the toolkit's `entry_point.run` calls when the code is there: its command, our way of running it."""

    class Runner(toolkit["process"].ProcessRunner):  # type: ignore[misc]  # known only after the import
        def run(self, *_: object, **__: object) -> None:
            code = Path(toolkit["environment"].code_dir)
            if not (code / program).exists() and not (code / "setup.py").exists():
                there = ", ".join(sorted(path.name for path in code.iterdir())) or "nothing"
                raise UserError(f"sagemaker_program {program!r} is not in the code, which holds {there}")
            run(self._create_command(), code)

    return Runner(program, arguments, variables, processes_per_host=1)


def _execute(program: str, command: Sequence[str], cwd: Path) -> None:
    logger.info("script mode: %s", " ".join(command))
    with stop_request() as stop:
        process = subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE)
        tail = _Tail(process)
        if stop.signal_number is not None:  # it came before the script was there to get it
            process.send_signal(stop.signal_number)
        code = process.wait()
        said = tail.read()
    if code != 0 and stop.signal_number is not None:
        raise ScriptStopped(stop.signal_number)
    if code != 0:
        raise ScriptError(_reason(program, code, said))


def _execute_everywhere(name: str, program: Program, resources: ResourceConfig, cwd: Path) -> None:
    """Run the script on this host as the others do on theirs, and end as all do."""
    logger.info("script mode on %d hosts: %s", len(resources.hosts), " ".join(program.command))
    tails: list[_Tail] = []
    program = dataclasses.replace(program, cwd=cwd, stderr=subprocess.PIPE, grace=SAVE_SECONDS)
    try:
        launch(
            program,
            resources,
            explain=lambda code: _explain(name, code, tails[0].read()),
            started=lambda process: tails.append(_Tail(process)),
            join_seconds=JOIN_SECONDS,
        )
    except Stopped as stopped:
        raise ScriptStopped(stopped.signal_number) from None


def _explain(name: str, code: int, said: str) -> tuple[int, str]:
    """The script's own exit code and reason, without what torchrun says about them."""
    if (torchrun_speaks := TORCHRUN.search(said)) is not None:
        exit_code = TORCHRUN_CODE.search(said, torchrun_speaks.start())
        code, said = int(exit_code[1]) if exit_code else code, said[: torchrun_speaks.start()]
    return code, _reason(name, code, RANK.sub("", said))


class _Tail:
    """Copies a script's stderr to ours as it comes, progress bars without line ends too, and keeps its end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._kept = bytearray()
        self._reader = threading.Thread(target=self._pass_through, args=(process.stderr,), daemon=True)
        self._reader.start()

    def read(self) -> str:
        """The end of what was written, once the script has ended."""
        self._reader.join(DRAIN_SECONDS)
        return self._kept.decode(errors="replace")

    def _pass_through(self, stderr: IO[bytes]) -> None:
        with stderr:
            for chunk in iter(lambda: os.read(stderr.fileno(), TAIL_BYTES), b""):
                sys.stderr.buffer.write(chunk)
                sys.stderr.buffer.flush()
                self._kept += chunk
                del self._kept[:-TAIL_BYTES]


def _reason(program: str, code: int, stderr: str) -> str:
    """The script's own last line first: FailureReason is cut after 1024 characters."""
    how = f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
    if code == -signal.SIGKILL:
        how += ", most likely out of memory"
    lines = [line for line in stderr.splitlines() if line.strip()][-REASON_LINES:]
    last = lines[-1].strip() if lines else "it wrote nothing to stderr; see the log"
    return "\n".join([f"{program} failed: {last} ({how})", *lines])
