"""Tests of the supervisor, the entry point of an image, with small programs as jobs."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from microjobs.contract import Layout, read_failure, read_message
from microjobs.processes import find_children
from tests.conftest import REPOSITORY

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "ml").mkdir()
    return Layout(tmp_path / "ml")


@pytest.fixture
def start(tmp_path: Path, layout: Layout) -> Start:
    """A function that starts the entry point on a job with this code as its main module."""

    def start(code: str, *arguments: str, grace_seconds: float | None = None) -> subprocess.Popen[str]:
        package = tmp_path / "my-job" / "microjobs_my_job"
        package.mkdir(parents=True, exist_ok=True)
        (package / "main.py").write_text(code)
        environment = os.environ | {
            "MICROJOBS_JOB": str(package.parent),
            "PYTHONPATH": str(REPOSITORY / "shared"),
            "SAGEMAKER_BASE_DIR": str(layout.root),
        }
        command = [sys.executable, "-m", "microjobs", *arguments]
        if grace_seconds is not None:  # the same program runs with a shorter grace period
            program = f"import sys, microjobs.__main__ as m; m.GRACE_SECONDS = {grace_seconds}; sys.exit(m.main())"
            command = [sys.executable, "-c", program, *arguments]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    return start


def wait_for_exit(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.01)


def test_successful_job_ends_with_0_and_no_failure(start: Start, layout: Layout) -> None:
    assert wait_for_exit(start("def process(arguments): print('done', arguments)", "a", "b")) == (
        0,
        "done ['a', 'b']\n",
        "",
    )
    assert read_failure(layout) is None


def test_job_starts_without_blocked_signals(start: Start) -> None:
    code = "import signal\ndef process(arguments): print(signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    assert wait_for_exit(start(code)) == (0, "set()\n", "")


def test_user_error_ends_with_2_and_its_message_without_a_traceback(start: Start, layout: Layout) -> None:
    code = "from microjobs.errors import UserError\ndef process(arguments): raise UserError('x.npy row 3 contains nan')"
    exit_code, _, log = wait_for_exit(start(code))
    assert exit_code == 2
    assert read_failure(layout) == read_message(layout) == "x.npy row 3 contains nan"
    assert "ERROR x.npy row 3 contains nan" in log
    assert "Traceback" not in log


SLOW_CLEAN_UP_PROGRAM = """
import shutil, time

def process(arguments):
    try:
        print("ready", flush=True)
        for _ in range(600):
            time.sleep(0.1)  # a signal that Python receives just before this call interrupts only the next one
    finally:
        print("cleaning", flush=True)
        time.sleep(1)
        print("clean", flush=True)
"""


def test_second_stop_signal_does_not_interrupt_the_clean_up(start: Start) -> None:
    process = start(SLOW_CLEAN_UP_PROGRAM)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGTERM)
    assert wait_for_exit(process)[:2] == (130, "clean\n")


STOPPED_WHILE_REPORTING_PROGRAM = """
import logging, os, signal
from microjobs.errors import UserError

class Stopping(logging.Handler):
    def emit(self, record):
        os.kill(os.getpid(), signal.SIGTERM)

def process(arguments):
    logging.getLogger().addHandler(Stopping())
    raise UserError("x.npy row 3 contains nan")
"""


def test_stop_signal_does_not_interrupt_the_report_of_an_error(start: Start, layout: Layout) -> None:
    exit_code, _, log = wait_for_exit(start(STOPPED_WHILE_REPORTING_PROGRAM))
    assert (exit_code, read_failure(layout)) == (2, "x.npy row 3 contains nan"), log


def test_unexpected_error_ends_with_1_and_a_traceback(start: Start, layout: Layout) -> None:
    exit_code, _, log = wait_for_exit(start("def process(arguments): return {}['key']"))
    failure = read_failure(layout)
    assert exit_code == 1
    assert failure is not None
    assert failure.startswith("KeyError: 'key'\nTraceback")
    assert "main.py" in log


def test_full_disk_is_a_platform_error(start: Start, layout: Layout) -> None:
    code = "import errno\ndef process(arguments): raise OSError(errno.ENOSPC, 'full', '/data/x.npy')"
    assert wait_for_exit(start(code))[0] == 3
    assert read_failure(layout) == "no space left on the device while writing /data/x.npy: give the job a larger volume"


@pytest.mark.parametrize(
    "consequence", ["raise RuntimeError('enforce failed') from error", "raise RuntimeError(str(error))"]
)
def test_full_disk_is_the_reason_of_a_library_error(start: Start, layout: Layout, consequence: str) -> None:
    cause = "raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))"
    code = f"import errno, os\ndef process(arguments):\n try: {cause}\n except OSError as error: {consequence}"
    assert wait_for_exit(start(code))[0] == 3
    assert (read_failure(layout) or "").startswith("no space left on the device while writing output")


def test_crash_in_native_code_gets_a_reason(start: Start, layout: Layout) -> None:
    code = "import os, signal\ndef process(arguments): os.kill(os.getpid(), signal.SIGSEGV)"
    assert wait_for_exit(start(code))[0] == 128 + signal.SIGSEGV
    assert "SIGSEGV" in (read_failure(layout) or "")


def test_sigkill_is_reported_as_missing_memory(start: Start, layout: Layout) -> None:
    code = "import os, signal\ndef process(arguments): os.kill(os.getpid(), signal.SIGKILL)"
    assert wait_for_exit(start(code))[0] == 128 + signal.SIGKILL
    assert "out of memory" in (read_failure(layout) or "")


def test_silent_exit_code_gets_a_reason(start: Start, layout: Layout) -> None:
    assert wait_for_exit(start("import os\ndef process(arguments): os._exit(7)"))[0] == 7
    assert "exited with code 7" in (read_failure(layout) or "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_ends_the_job_without_a_failure(number: int, start: Start, layout: Layout, tmp_path: Path) -> None:
    code = (
        f"import pathlib, time\ndef process(arguments): pathlib.Path({str(tmp_path / 'up')!r}).touch(); time.sleep(60)"
    )
    process = start(code)
    wait_for(tmp_path / "up")
    process.send_signal(number)
    exit_code, _, log = wait_for_exit(process)
    assert exit_code == 128 + number
    assert f"stopped by {signal.Signals(number).name}" in log
    assert read_failure(layout) is None


def blocks_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith("SigBlk:"))
    return bool(int(mask.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("delay", [0, 0.05, 0.1, 0.2])
def test_training_that_is_stopped_at_its_start_ends_with_0(delay: float, start: Start, layout: Layout) -> None:
    process = start("import time\ndef train(values): time.sleep(60)", "train")
    while not blocks_sigterm(process.pid):  # an earlier SIGTERM would end the interpreter, before the entry point runs
        time.sleep(0.001)
    time.sleep(delay)
    process.terminate()
    exit_code, _, log = wait_for_exit(process)
    assert exit_code == 0, log
    assert "stopped by SIGTERM before the training began" in log
    assert read_failure(layout) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_after_the_job_has_no_effect(number: int, start: Start, tmp_path: Path) -> None:
    ready_file = tmp_path / "up"
    touch_file = f"pathlib.Path({str(ready_file)!r}).touch()"
    exit_hook = f"import atexit, pathlib, time; atexit.register(lambda: ({touch_file}, time.sleep(0.5)))"
    process = start(f"{exit_hook}\ndef process(arguments): pass")
    wait_for(ready_file)
    process.send_signal(number)
    assert wait_for_exit(process)[0] == 0


def test_stop_signal_that_native_code_converts_to_an_error_stops_the_job(
    start: Start, layout: Layout, tmp_path: Path
) -> None:
    """The import of onnxruntime converts the exception that a SIGTERM raises into an ImportError."""
    code = f"""
import pathlib, time
try:
    pathlib.Path({str(tmp_path / "up")!r}).touch()
    time.sleep(60)
except BaseException as error:
    raise ImportError("initialization failed") from error
"""
    process = start(code)
    wait_for(tmp_path / "up")
    process.terminate()
    assert wait_for_exit(process)[0] == 128 + signal.SIGTERM
    assert read_failure(layout) is None


PROGRAM_WITH_CHILD = """
import os, pathlib, signal, subprocess, sys, time
def process(arguments):
    # A program that saves its work after SIGTERM, as a user's script may do.
    child = "import pathlib, signal, sys, time;" \\
        "signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[1], 'saved').touch(), sys.exit(0)));" \\
        "pathlib.Path(sys.argv[1], 'up').touch(); time.sleep(60)"
    subprocess.Popen([sys.executable, "-c", child, arguments[0]]).wait()
"""


def test_whole_process_group_gets_the_stop_signal(start: Start, tmp_path: Path) -> None:
    process = start(PROGRAM_WITH_CHILD, str(tmp_path))
    wait_for(tmp_path / "up")
    process.terminate()
    wait_for_exit(process)
    assert (tmp_path / "saved").exists()


def test_job_that_ignores_the_signal_is_killed_with_a_reason(start: Start, layout: Layout, tmp_path: Path) -> None:
    code = (
        "import pathlib, signal, time\n"
        f"def process(arguments): signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"pathlib.Path({str(tmp_path / 'up')!r}).touch(); time.sleep(60)"
    )
    process = start(code, grace_seconds=0.5)
    wait_for(tmp_path / "up")
    process.terminate()
    assert wait_for_exit(process)[0] == 128 + signal.SIGKILL
    assert "did not end within 0.5 s" in (read_failure(layout) or "")


def test_second_stop_signal_does_not_extend_the_deadline(start: Start, tmp_path: Path) -> None:
    ready_file = tmp_path / "up"
    process = start(
        "import pathlib, signal, time\n"
        "def process(arguments):\n"
        f"    signal.signal(signal.SIGTERM, signal.SIG_IGN); pathlib.Path({str(ready_file)!r}).touch(); time.sleep(60)",
        grace_seconds=3.0,
    )
    wait_for(ready_file)
    start_time = time.monotonic()
    process.terminate()
    time.sleep(2.6)
    process.terminate()
    assert wait_for_exit(process)[0] == 128 + signal.SIGKILL
    assert time.monotonic() - start_time < 5.4


def test_orphans_are_ended_and_reaped(start: Start, tmp_path: Path) -> None:
    """The entry point adopts and ends a daemon that is in another process group."""
    code = f"""
import os, pathlib, subprocess, sys
def process(arguments):
    daemon = subprocess.Popen(["sleep", "60"], start_new_session=True)
    pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(daemon.pid))
"""
    process = start(code)
    assert wait_for_exit(process)[0] == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_error_of_an_unsupported_command_lists_the_supported_commands(start: Start, layout: Layout) -> None:
    assert wait_for_exit(start("def process(arguments): ...", "serve"))[0] == 2
    assert read_failure(layout) == "this image does not serve: it can process"


def test_results_belong_to_the_owner_of_their_folder(start: Start, layout: Layout) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can create files for another user")
    layout.model.mkdir()
    os.chown(layout.model, 12345, 23456)
    code = f"import pathlib\ndef process(arguments): pathlib.Path({str(layout.model / 'm')!r}).touch()"
    wait_for_exit(start(code))
    assert (layout.model / "m").stat().st_uid == 12345


@pytest.mark.parametrize("name", ["ü" * 8, "a) S 1 (b"])
def test_child_with_special_characters_in_its_name_is_found(name: str, tmp_path: Path) -> None:
    """The system keeps 15 bytes of a name, which may end within a character or contain parentheses."""
    program = tmp_path / name
    program.symlink_to(shutil.which("sleep") or "")
    with subprocess.Popen([program, "60"]) as process:
        try:
            assert process.pid in find_children(os.getpid())
        finally:
            process.kill()
