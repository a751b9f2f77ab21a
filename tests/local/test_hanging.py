"""Tests of servers that do not answer: how commands stop, replace and report them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from microjobs_orchestrator.local import control, home_lock
from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.home import Home
from tests.polling import wait_until

CONFIG = Config(port=0, runtime="process")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home whose server is killed after the test. The timeouts of `control` are short."""
    for name, seconds in {"RESPONSE_TIMEOUT": 0.5, "HANG_TIMEOUT": 1.0, "TERM_TIMEOUT": 1.0}.items():
        monkeypatch.setattr(control, name, seconds)
    home = Home(tmp_path / "home")
    yield home
    if (pid := home_lock.find_holder(home)) is not None:
        os.kill(pid, signal.SIGKILL)


def start_hanging_server(home: Home) -> int:
    """Start a server and suspend it. Like a process that never releases the GIL, it then reacts only to SIGKILL."""
    pid = control.start(home, CONFIG).pid
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0], lambda state: state == "T")
    return pid


def test_hanging_server_is_killed(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    pid = start_hanging_server(home)
    assert control.stop(home)
    assert (home_lock.find_holder(home), control.find_server(home)) == (None, None)
    assert f"process {pid}, did not stop within 1 s and is killed" in caplog.text
    assert not control.stop(home)
    assert not home.server_file.exists()


@pytest.mark.slow
def test_hanging_server_is_replaced(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    pid = start_hanging_server(home)
    with control.use_server(home, CONFIG) as address:
        assert address.pid != pid
    assert f"process {pid}, has not answered for 1 s" in caplog.text


@pytest.mark.slow
def test_commands_report_a_hanging_server(home: Home) -> None:
    pid = start_hanging_server(home)
    try:
        environment = {**os.environ, "MICROJOBS_HOME": str(home.root)}
        for command, stream in (("status", "stdout"), ("env", "stderr")):
            result = subprocess.run(
                ["microjobs", "local", command], env=environment, capture_output=True, text=True, check=False
            )
            assert result.returncode == 1
            assert f"process {pid}, does not answer" in getattr(result, stream)
    finally:
        control.stop(home)


def test_start_waits_for_a_stopping_server(home: Home) -> None:
    first_address = control.start(home, CONFIG)
    os.kill(first_address.pid, signal.SIGTERM)
    wait_until(home.server_file.exists, lambda exists: not exists)  # after this, the server ends its jobs
    with control.use_server(home, CONFIG) as address:
        assert address.pid != first_address.pid


def test_start_fails_when_the_server_hangs(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "START_TIMEOUT", 1.0)
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('stuck', flush=True); time.sleep(99)"
    )
    popen = subprocess.Popen

    def start_script(_: list[str], **options: object) -> subprocess.Popen[bytes]:
        return popen([sys.executable, "-c", script], **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(subprocess, "Popen", start_script)
    start_time = time.monotonic()
    with pytest.raises(control.ServerError, match="did not answer within 1 s; the end of its log: stuck"):
        control.start(home, CONFIG)
    assert time.monotonic() - start_time < 60


def test_process_with_the_reused_id_of_a_server_is_not_stopped(home: Home) -> None:
    home.create()
    with subprocess.Popen(["sleep", "100"]) as process:
        home.lock.write_text(f"{process.pid} 0")
        home.server_file.write_text(f'{{"url": "http://127.0.0.1:9", "pid": {process.pid}}}')
        assert not control.stop(home)
        assert process.poll() is None
        process.terminate()


def test_frequent_status_checks_do_not_prevent_a_start(home: Home) -> None:
    home.create()
    program = f"""
from pathlib import Path
from microjobs_orchestrator.local import home_lock
from microjobs_orchestrator.local.home import Home
while True:
    home_lock.find_holder(Home(Path({str(home.root)!r})))
"""
    with subprocess.Popen([sys.executable, "-c", program]) as watcher:
        try:
            with control.use_server(home, CONFIG) as address:
                wait_until(lambda: control.find_server(home), lambda server: server == address)
        finally:
            watcher.kill()
