"""Tests of the process runtime with small programs as hosts."""

import ctypes
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from microjobs.contract import Layout, read_failure
from microjobs.interpreter import BYTECODE_CACHING_FLAGS, PYTHON_VARIABLE, SYS_EXECUTABLE_VARIABLES
from microjobs_orchestrator.local import trees
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.runtimes.base import (
    CannotRunError,
    Exit,
    Host,
    HostLimits,
    HostPlan,
    Input,
    Line,
    Plan,
)
from microjobs_orchestrator.local.runtimes.process import process_shim
from microjobs_orchestrator.local.runtimes.process.managed_process import ManagedProcess
from microjobs_orchestrator.local.runtimes.process.runtime import ProcessRuntime
from tests.conftest import CONTAINERS, REPOSITORY
from tests.local.runtimes.processes import (
    find_processes,
    get_names,
    make_host_plan,
    make_program_plan,
    make_tiny_repository,
    make_tiny_runtime,
    read_output,
    wait_for_line,
)
from tests.local.trees import copy_from_host
from tests.polling import wait_until

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_SYS_ADMIN = 24, 1, 21

LAYOUT = Layout()
INPUT, OUTPUT = (str(LAYOUT.processing(name)) for name in ("input", "output"))
"""Paths in the hosts."""

Start = Callable[[HostPlan], Host]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the home and the jobs. All tests share this folder, so that the environment is created once."""
    workspace = tmp_path_factory.mktemp("workspace")
    make_tiny_repository(workspace, "import os, signal\ndef process(arguments): os.kill(os.getpid(), signal.SIGSEGV)")
    return workspace


@pytest.fixture
def runtime(workspace: Path) -> Iterator[ProcessRuntime]:
    runtime = make_tiny_runtime(workspace)
    yield runtime
    runtime.close()
    for plan in list_plans(workspace):
        runtime.remove(plan)


def list_plans(workspace: Path) -> list[str]:
    folder = Home(workspace / "home").work / "process"
    return sorted(get_names(folder.iterdir())) if folder.exists() else []


@pytest.fixture
def start(runtime: ProcessRuntime) -> Start:
    """A function that starts a plan with one host, and returns the host."""
    return lambda host: runtime.start(Plan("processing-job/job", (host,)))[0]


def test_program_ends_with_its_exit_code(start: Start, tmp_path: Path) -> None:
    assert start(make_program_plan(tmp_path, "import sys; sys.exit(7)")).wait() == Exit(7)


def test_crashed_job_writes_its_signal_to_the_failure_file(start: Start, tmp_path: Path) -> None:
    host = start(make_host_plan(tmp_path, "tiny", arguments=()))
    assert host.wait() == Exit(128 + signal.SIGSEGV)
    assert copy_from_host(host, str(LAYOUT.output), tmp_path / "output")
    assert "SIGSEGV" in (tmp_path / "output" / "failure").read_text()
    assert read_failure(Layout(tmp_path)) is not None


def test_job_stores_the_bytecode_of_its_packages(workspace: Path, start: Start, tmp_path: Path) -> None:
    start(make_host_plan(tmp_path, "tiny", arguments=())).wait()
    assert list((workspace / "repository" / "containers" / "tiny" / "microjobs_tiny").glob("__pycache__/main.*.pyc"))


@pytest.mark.parametrize("name", sorted(get_names((CONTAINERS / "bin").iterdir())))
def test_programs_of_the_images_store_bytecode(name: str, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"')
    python.chmod(0o755)
    command, variables = [str(CONTAINERS / "bin" / name), "argument"], {PYTHON_VARIABLE: str(python)}
    output = subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout
    assert output == f"{BYTECODE_CACHING_FLAGS} -m microjobs {name} argument\n"


def test_sigkill_is_reported_as_lack_of_memory(start: Start, tmp_path: Path) -> None:
    exit_ = start(make_program_plan(tmp_path, "import os; os.kill(os.getpid(), 9)")).wait()
    assert exit_.code == 137
    assert "out of memory" in (exit_.reason or "")


def test_lines_of_stdout_and_stderr_have_times(start: Start, tmp_path: Path) -> None:
    code = "import sys, time; print('out', flush=True); time.sleep(1); print('err', file=sys.stderr); print(end='last')"
    start_time = time.time()
    lines = list(start(make_program_plan(tmp_path, code)).lines())
    assert {line.text for line in lines} == {b"out", b"err", b"last"}
    assert start_time < lines[0].time < lines[1].time - 0.5 < time.time()


def test_folder_is_added_to_a_running_host_and_removed(start: Start, tmp_path: Path) -> None:
    source, target = tmp_path / "source", f"{LAYOUT.root}/models/one"
    source.mkdir()
    (source / "a.txt").write_text("content")
    (source / "link").symlink_to("a.txt")
    code = (
        "import os, pathlib, time\n"
        "file = pathlib.Path(os.environ['SAGEMAKER_BASE_DIR'], 'models/one/a.txt')\n"
        "for exists in (True, False):\n"
        "    while file.exists() != exists: time.sleep(0.01)\n"
        "    print(exists, flush=True)\n"
    )
    host = start(make_program_plan(tmp_path, code))
    for _ in range(2):
        host.add_folder(source, f"{target}-twice")
    host.add_folder(source, target)
    wait_for_line(host, b"True")
    host.remove_folder(target)
    assert host.wait() == Exit(0)
    host.remove_folder(target)
    with pytest.raises(CannotRunError, match="has ended"):
        host.add_folder(source, target)


def test_lines_are_the_same_on_each_call(start: Start, tmp_path: Path) -> None:
    host = start(make_program_plan(tmp_path, "for number in range(20000): print(number)"))
    lines = list(host.lines())
    assert [int(line.text) for line in lines] == list(range(20000))
    assert list(host.lines()) == lines


def test_lines_are_available_while_the_host_runs(start: Start, tmp_path: Path) -> None:
    host = start(make_program_plan(tmp_path, "import time; print('up', flush=True); time.sleep(60)"))
    assert next(iter(host.lines())).text == b"up"
    host.stop(0)


def test_incomplete_line_is_read_when_it_is_complete(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = ManagedProcess(["/bin/sleep", "1"], {}, log)
    log.write_bytes(b"1000000 ha")
    timer = threading.Timer(0.3, log.write_bytes, [b"1000000 half\n"])
    timer.start()
    assert list(process.lines()) == [Line(1.0, b"half")]
    assert process.wait() == 0


def test_unread_output_does_not_block_the_host(start: Start, tmp_path: Path) -> None:
    assert start(make_program_plan(tmp_path, "print('x' * 50_000_000)")).wait() == Exit(0)


def test_paths_in_entry_point_are_translated(start: Start, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "main.py").write_text("import sys; print(open(sys.argv[1].partition('=')[2]).read())")
    (source / "data.txt").write_text("read")
    plan = make_host_plan(
        tmp_path,
        "tiny",
        inputs=(Input(INPUT, source),),
        entrypoint=("/usr/bin/python3", f"{INPUT}/main.py"),
        arguments=(f"--data={INPUT}/data.txt",),
    )
    assert read_output(start(plan)) == "read"


def test_writing_into_an_input_does_not_change_the_bucket(start: Start, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "x.csv").write_text("1")
    (source / "x.csv").chmod(0o444)
    code = "import sys; open(sys.argv[1] + '/x.csv', 'a').write('2'); open(sys.argv[1] + '/new', 'w')"
    host = start(make_program_plan(tmp_path, code, INPUT, inputs=(Input(INPUT, source),)))
    assert host.wait() == Exit(0), read_output(host)
    copy_from_host(host, INPUT, tmp_path / "copy")
    assert (tmp_path / "copy" / "x.csv").read_text() == "12"
    assert get_names(source.iterdir()) == {"x.csv"}
    assert (source / "x.csv").read_text() == "1"


def test_host_does_not_inherit_secrets(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    code = "import os; print(*sorted(os.environ), os.environ['GIVEN'], os.environ['HOME'])"
    options = {"environment": {"GIVEN": "value"}, "default_variables": {"GIVEN": "default", "DEFAULT": ""}}
    words = read_output(start(make_program_plan(tmp_path, code, **options))).split()
    assert "AWS_SECRET_ACCESS_KEY" not in words
    assert {"LC_ALL", "SAGEMAKER_BASE_DIR", "DEFAULT", "value"} <= set(words)
    assert not Path(words[-1]).exists(), "the HOME folder of an ended host still exists"


HOSTILE_VARIABLES = dict.fromkeys(("PYTHONHOME", *SYS_EXECUTABLE_VARIABLES, "PATH", "MICROJOBS_JOB"), "/nonexistent")


@pytest.mark.parametrize(
    ("entrypoint", "reason"), [(None, "SIGSEGV"), (("train",), "this image does not train")], ids=["image", "train"]
)
def test_variables_of_the_request_do_not_break_the_images_programs(
    entrypoint: tuple[str, ...] | None, reason: str, start: Start, tmp_path: Path
) -> None:
    """The tiny job crashes on purpose. The failure file proves that the image's modules ran, not those in `shadows`."""
    (tmp_path / "shadows").mkdir()
    for name in ("json", "main", "microjobs", "sitecustomize"):
        (tmp_path / "shadows" / f"{name}.py").write_text("import os\nos._exit(99)\n")
    environment = {**HOSTILE_VARIABLES, "PYTHONPATH": str(tmp_path / "shadows")}
    host = start(make_host_plan(tmp_path, "tiny", arguments=(), entrypoint=entrypoint, environment=environment))
    host.wait()
    assert copy_from_host(host, str(LAYOUT.output), tmp_path / "output"), read_output(host)
    assert reason in (tmp_path / "output" / "failure").read_text()


def test_python_path_of_the_request_applies_to_its_program(start: Start, tmp_path: Path) -> None:
    code = "import sys; print('/opt/library' in sys.path)"
    assert read_output(start(make_program_plan(tmp_path, code, environment={"PYTHONPATH": "/opt/library"}))) == "True"


def test_pip_fails_in_a_shared_environment(start: Start, tmp_path: Path) -> None:
    host = start(make_host_plan(tmp_path, "tiny", entrypoint=("sh", "-c"), arguments=("pip install nothing",)))
    assert host.wait() == Exit(2)
    assert "jobs share the packages of tiny" in read_output(host)


def test_host_without_gpus_has_no_visible_gpu(start: Start, tmp_path: Path) -> None:
    assert read_output(start(make_program_plan(tmp_path, "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"))) == ""


def test_host_sees_the_gpus_that_its_request_selects(start: Start, tmp_path: Path) -> None:
    selection = {"NVIDIA_VISIBLE_DEVICES": "1,3", "CUDA_VISIBLE_DEVICES": "0"}
    host = make_program_plan(
        tmp_path, "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])", has_gpus=True, environment=selection
    )
    assert read_output(start(host)) == "1"


def test_limits_set_the_cpus_of_a_host(start: Start, tmp_path: Path) -> None:
    code = "import os; print(len(os.sched_getaffinity(0)))"
    assert read_output(start(make_program_plan(tmp_path, code, limits=HostLimits(cpus=1, memory_bytes=1 << 30)))) == "1"


STUBBORN_PROGRAM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)


def test_stop_sends_sigterm_first(start: Start, tmp_path: Path) -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('saved')));"
    host = start(make_program_plan(tmp_path, code + "print('up', flush=True); time.sleep(600)"))
    wait_for_line(host, b"up")
    host.stop(60)
    assert host.wait() == Exit(0)
    assert "saved" in read_output(host)


def test_stop_sends_sigkill_after_the_grace_period(start: Start, tmp_path: Path) -> None:
    host = start(make_program_plan(tmp_path, STUBBORN_PROGRAM))
    wait_for_line(host, b"up")
    start_time = time.monotonic()
    host.stop(0.3)
    assert 0.3 <= time.monotonic() - start_time < 3
    assert host.wait() == Exit(137)
    host.stop(60)


def test_second_stop_can_shorten_the_grace_period(start: Start, tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: print('signalled', flush=True)); "
    host = start(make_program_plan(tmp_path, code + "print('up', flush=True); [time.sleep(1) for _ in range(600)]"))
    wait_for_line(host, b"up")
    first_stop = threading.Thread(target=host.stop, args=(60,))
    first_stop.start()
    wait_for_line(host, b"signalled")
    host.stop(0)
    first_stop.join(5)
    assert not first_stop.is_alive()


def make_unique_seconds() -> str:
    """Return a sleep time that no other process has, so that a search for it finds only the test's processes."""
    return f"600.{secrets.randbelow(10**9):09}"


DAEMON_PROGRAM = "import subprocess, sys; subprocess.Popen(['sleep', sys.argv[1]], start_new_session=True); print('up')"


def test_processes_of_a_host_end_with_it(start: Start, tmp_path: Path) -> None:
    seconds = make_unique_seconds()
    assert start(make_program_plan(tmp_path, DAEMON_PROGRAM, seconds)).wait() == Exit(0)
    assert find_processes(seconds) == []


def test_copy_distinguishes_missing_from_empty_folders(start: Start, tmp_path: Path) -> None:
    host = start(make_program_plan(tmp_path, "import os, sys; os.makedirs(sys.argv[1])", OUTPUT))
    host.wait()
    assert copy_from_host(host, OUTPUT, tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []
    assert not copy_from_host(host, str(LAYOUT.model), tmp_path / "none")


def test_copy_from_a_running_host_is_not_linked(start: Start, tmp_path: Path) -> None:
    code = """
import os, sys, time
os.makedirs(sys.argv[1])
with open(sys.argv[1] + "/state", "w") as file:
    print("one", file=file, flush=True); print("up", flush=True); time.sleep(3); print("two", file=file)
"""
    host = start(make_program_plan(tmp_path, code, OUTPUT))
    wait_for_line(host, b"up")
    copy_from_host(host, OUTPUT, tmp_path / "early")
    host.wait()
    assert (tmp_path / "early" / "state").read_text() == "one\n"


def test_removed_plan_leaves_nothing(runtime: ProcessRuntime, start: Start, workspace: Path, tmp_path: Path) -> None:
    host = start(make_program_plan(tmp_path, STUBBORN_PROGRAM))
    wait_for_line(host, b"up")
    runtime.remove("processing-job/job")
    runtime.remove("processing-job/job")
    assert host.wait() == Exit(137)
    assert list_plans(workspace) == []
    start(make_program_plan(tmp_path / "again", "pass"))


def test_all_hosts_start_or_none(runtime: ProcessRuntime, workspace: Path, tmp_path: Path) -> None:
    seconds = make_unique_seconds()
    valid_host = make_program_plan(tmp_path, f"import time; time.sleep({seconds})")
    invalid_host = make_program_plan(tmp_path, "pass", name="algo-2", inputs=(Input("/etc/input", tmp_path),))
    with pytest.raises(CannotRunError, match=r"path /etc/input is not below"):
        runtime.start(Plan("job", (valid_host, invalid_host)))
    assert find_processes(seconds) == []
    assert list_plans(workspace) == []


def test_path_outside_of_the_root_raises(start: Start, tmp_path: Path) -> None:
    with pytest.raises(CannotRunError, match="is not below"):
        start(make_program_plan(tmp_path, "pass", inputs=(Input(f"{INPUT}/../../../../etc", tmp_path),)))


def test_network_isolation_raises(runtime: ProcessRuntime, tmp_path: Path) -> None:
    with pytest.raises(CannotRunError, match="network isolation needs an engine"):
        runtime.start(Plan("job", (make_program_plan(tmp_path, "pass"),), isolated=True))


def test_error_names_an_unknown_program(start: Start, tmp_path: Path) -> None:
    with pytest.raises(CannotRunError, match="entry point 'Rscript' is not in the environment of tiny"):
        start(make_host_plan(tmp_path, "tiny", entrypoint=("Rscript",)))


def test_second_start_of_a_plan_raises(start: Start, tmp_path: Path) -> None:
    host = start(make_program_plan(tmp_path, "import time; time.sleep(0.3); print('done')"))
    with pytest.raises(CannotRunError, match="was started already"):
        start(make_program_plan(tmp_path / "again", "pass"))
    assert read_output(host) == "done"


SERVER_PROGRAM = """
import sys, time
from pathlib import Path
from microjobs_orchestrator.local.runtimes.base import Plan
from tests.local.runtimes.processes import make_program_plan, make_tiny_runtime
host, = make_tiny_runtime(Path(sys.argv[1])).start(Plan("job", (make_program_plan(Path(sys.argv[2]), *sys.argv[3:]),)))
next(line for line in host.lines() if line.text == b"up")
print("up", flush=True)
time.sleep(600)
"""
"""A program that starts a host as a server does, and runs until it is killed."""


SHIM_STOPPING_PROGRAM = """
import os, signal, time
print("up", flush=True)
time.sleep(0.5)  # until the shim has written the line to the log
os.kill(os.getppid(), signal.SIGSTOP)
time.sleep(600)
"""
"""A host's program that stops the shim, which is its parent process."""


STOPPED_STATE, ZOMBIE_STATE = "T", "Z"
"""States of a process in /proc/PID/stat."""


def wait_for_state(pid: int, state: str) -> None:
    wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == state)


def wait_for_shim(argument: str) -> int:
    """Wait until the shim of a program with this argument has started; return the process id of the shim."""
    return wait_until(lambda: [*{*find_processes(argument)} & {*find_processes("process_shim")}])[0]


def test_program_that_stops_its_shim_is_ended(start: Start, tmp_path: Path) -> None:
    seconds = make_unique_seconds()
    host = start(make_program_plan(tmp_path, SHIM_STOPPING_PROGRAM, seconds))
    wait_for_state(wait_for_shim(seconds), STOPPED_STATE)
    start_time = time.monotonic()
    host.stop(0.3)
    assert time.monotonic() - start_time < 5
    assert find_processes(seconds) == []


def test_next_server_ends_a_stopped_shim(workspace: Path, tmp_path: Path) -> None:
    seconds = make_unique_seconds()
    arguments = [sys.executable, "-c", SERVER_PROGRAM, str(workspace), str(tmp_path), SHIM_STOPPING_PROGRAM, seconds]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'shared'}"}
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, env=environment) as server:
        wait_for_state(wait_for_shim(seconds), STOPPED_STATE)
        server.kill()
    assert make_tiny_runtime(workspace).find_hosts() == {}
    assert find_processes(seconds) == []
    assert list_plans(workspace) == []


@pytest.mark.parametrize(
    "code", [DAEMON_PROGRAM + "; import time; sys.stdout.flush(); time.sleep(600)", STUBBORN_PROGRAM]
)
def test_killed_server_leaves_no_process(code: str, workspace: Path, tmp_path: Path) -> None:
    seconds = make_unique_seconds()
    arguments = [sys.executable, "-c", SERVER_PROGRAM, str(workspace), str(tmp_path), code, seconds]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'shared'}"}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        assert find_processes(seconds) != []
        server.kill()
    assert make_tiny_runtime(workspace).find_hosts() == {}
    assert find_processes(seconds) == []
    assert list_plans(workspace) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_shim_ends_its_program(number: int, start: Start, tmp_path: Path) -> None:
    seconds = make_unique_seconds()
    code = "import os, sys, time; print('up in', os.getcwd(), flush=True); time.sleep(float(sys.argv[1]))"
    host = start(make_program_plan(tmp_path, code, seconds))
    wait_for_line(host, b"up in")
    os.kill(wait_for_shim(seconds), number)
    assert host.wait().code in (128 + signal.SIGTERM, 128 + signal.SIGKILL)
    assert host.wait().has_external_cause is (number == signal.SIGKILL)
    assert not Path(read_output(host).removeprefix("up in ")).exists()
    wait_until(lambda: find_processes(seconds) == [])


def test_other_folders_are_removed_if_one_cannot_be_removed(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Home(workspace / "home").work / "process"
    for name in ("a", "b", "c"):
        (work / name).mkdir(parents=True)
    remove = trees.remove

    def remove_others(folder: Path) -> None:
        if folder.name == "b":
            raise PermissionError(1, "Operation not permitted", str(folder))
        remove(folder)

    with monkeypatch.context() as patch:
        patch.setattr(trees, "remove", remove_others)
        assert make_tiny_runtime(workspace).find_hosts() == {}
        assert list_plans(workspace) == ["b"]
    remove(work / "b")


def test_ctrl_c_at_the_server_does_not_reach_its_hosts(start: Start, tmp_path: Path) -> None:
    """Ctrl-C reaches only the processes in the session of the terminal, and each shim starts a session of its own."""
    host = start(make_program_plan(tmp_path, "import os; print(os.getsid(0), os.getppid())"))
    session, shim = read_output(host).split()
    assert session == shim


def test_closed_runtime_ends_its_hosts(runtime: ProcessRuntime, start: Start, tmp_path: Path) -> None:
    host = start(make_program_plan(tmp_path, "import time; print('up', flush=True); time.sleep(600)"))
    wait_for_line(host, b"up")
    runtime.close()
    assert host.wait() == Exit(128 + signal.SIGTERM)


def test_parallel_jobs_have_different_addresses(runtime: ProcessRuntime, tmp_path: Path) -> None:
    code = """
import os, socket, time
with socket.create_server((os.environ["MICROJOBS_ADDRESS"], 18786)):
    print("up", flush=True); time.sleep(60)
"""
    for number in range(5):
        (host,) = runtime.start(Plan(f"job/{number}", (make_program_plan(tmp_path / str(number), code),)))
        wait_for_line(host, b"up")


def run_shim(
    log: str, working_folder: Path, script: str, *, folder: Path | None = None, path: Path | None = None, **options: Any
) -> int:
    """Run a shim without a server; return its exit code. The script sees `folder` at `path`."""
    working_folder.mkdir()
    mount = [str(folder or ""), str(path or "")]
    command = [
        sys.executable,
        "-I",
        "-S",
        process_shim.__file__,
        log,
        str(working_folder),
        "",
        *mount,
        "sh",
        "-c",
        script,
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    ) as process:
        return process.wait(30)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_log_on_a_full_disk_does_not_change_the_exit_code(tmp_path: Path) -> None:
    assert run_shim("/dev/full", tmp_path / "working", "echo x; exit 3") == 3


def test_output_left_in_the_pipe_at_the_end_is_logged(tmp_path: Path) -> None:
    (tmp_path / "working").mkdir()
    shim = [
        sys.executable,
        "-I",
        "-S",
        process_shim.__file__,
        str(tmp_path / "log"),
        str(tmp_path / "working"),
        *[""] * 3,
    ]
    # The shim needs several reads for this output, which fits into the pipe. The program stops the shim, and the test
    # resumes the shim when the program has ended.
    code = "import fcntl, os; fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20); os.kill(os.getppid(), 19)"
    command = [*shim, sys.executable, "-c", f"{code}; os.write(1, b'line\\n' * 100_000)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        wait_for_state(process.pid, STOPPED_STATE)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        wait_for_state(int(child), ZOMBIE_STATE)
        process.send_signal(signal.SIGCONT)
        assert process.wait(30) == 0
    assert (tmp_path / "log").read_bytes().count(b" line\n") == 100_000


def test_folders_that_a_job_made_read_only_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "working" / "cache"
    script = f"mkdir -p {folder}/inner && touch {folder}/inner/file && chmod 555 {folder}/inner {folder}"
    assert run_shim(str(tmp_path / "log"), tmp_path / "working", script, preexec_fn=drop_capabilities) == 0
    assert not folder.exists()


def drop_capabilities() -> None:
    """Drop root's capabilities to mount folders and to write into read-only folders."""
    if os.geteuid() == 0:
        for capability in (CAP_DAC_OVERRIDE, CAP_SYS_ADMIN):
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def test_program_that_cannot_be_started_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with pytest.raises(ValueError, match="null"):
        ManagedProcess(["true"], {"A": "a\0b"}, tmp_path / "log")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_program_can_use_the_paths_of_the_contract(start: Start, tmp_path: Path) -> None:
    text = str(LAYOUT.processing("text"))
    code = f"import pathlib; p = pathlib.Path({text!r}); p.mkdir(parents=True); (p / 'a').write_text('b')"
    host = start(make_program_plan(tmp_path, code))
    assert host.wait() == Exit(0), read_output(host)
    assert copy_from_host(host, text, tmp_path / "copy")
    assert (tmp_path / "copy" / "a").read_text() == "b"
    assert not Path(text).exists()


@pytest.mark.parametrize("user", ["root", "any-user"])
def test_missing_root_is_added_to_its_parent_folder(user: str, tmp_path: Path) -> None:
    parent, folder = tmp_path / "parent", tmp_path / "root"
    for path in (parent / "other", folder):
        path.mkdir(parents=True)
    (parent / "other" / "file").write_text("1")
    (parent / "link").symlink_to("other/file")
    (parent / "file").write_text("2")
    (folder / "content").write_text("3")
    script = f"cd {parent} && cat other/file link file ml/content && echo 4 > ml/new"
    prepare = drop_capabilities if user == "any-user" else None
    mount = {"folder": folder, "path": parent / "ml"}
    code = run_shim(str(tmp_path / "log"), tmp_path / "working", script, **mount, preexec_fn=prepare)
    log = (tmp_path / "log").read_text()
    assert code == 0, log
    assert log.endswith(" 1123\n")
    assert (folder / "new").read_text() == "4\n"
    assert sorted(get_names(parent.iterdir())) == ["file", "link", "other"]


@pytest.mark.parametrize("user", ["root", "any-user"])
def test_working_folder_does_not_contain_the_parent_folder(user: str, tmp_path: Path) -> None:
    """A program that empties its working folder must not empty the parent folder."""
    parent, working_folder = tmp_path / "parent", tmp_path / "working"
    (parent / "other").mkdir(parents=True)
    prepare = drop_capabilities if user == "any-user" else None
    mount = {"folder": tmp_path, "path": parent / "ml"}
    assert run_shim(str(tmp_path / "log"), working_folder, f"find {working_folder}", **mount, preexec_fn=prepare) == 0
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.endswith(f" {working_folder}")


@pytest.mark.parametrize("user", ["root", "any-user"])
def test_parent_folder_is_unchanged_if_the_root_cannot_be_added(user: str, tmp_path: Path) -> None:
    path = tmp_path / "parent" / "ml"
    path.parent.mkdir()
    path.write_text("a file")
    prepare = drop_capabilities if user == "any-user" else None
    mount = {"folder": tmp_path, "path": path}
    script = f"touch {path.parent}/new"
    assert run_shim(str(tmp_path / "log"), tmp_path / "working", script, **mount, preexec_fn=prepare) == 0
    assert "is not available to this process" in (tmp_path / "log").read_text()
    assert sorted(get_names(path.parent.iterdir())) == ["ml", "new"]


def test_root_that_cannot_be_mounted_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "ml"
    assert run_shim(str(tmp_path / "log"), tmp_path / "working", "exit 5", folder=tmp_path, path=path) == 5
    log = (tmp_path / "log").read_text()
    assert f"[microjobs] {path} is not available to this process" in log
    assert "read the path of this folder from the variable SAGEMAKER_BASE_DIR" in log
