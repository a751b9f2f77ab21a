"""Start, readiness, failures to start, workers that die, and SIGTERM."""

import contextlib
import http.client
import shutil
import signal
import tarfile
import threading
import time
from pathlib import Path

import pytest

from microjobs.bundle import ARCHIVE_FILE, MANIFEST_FILE, MODEL_FILE
from tests.unit.serve.conftest import Reply, Server, run_server
from tests.unit.serve.test_serve_handlers import SLOW_PROGRAM, invoke_in_parallel, run_server_with_program

ROW = '{"instances": [[1, 2, 3]]}'


def test_start_logs_one_line(root: Path) -> None:
    with run_server(root) as server:
        server.wait_until_ready()
        server.invoke(ROW)
        assert server.stop() == 0
    (line,) = server.log.splitlines()
    for word in ("INFO", "onnx", "features 3", f"port {server.port}", "1 worker"):
        assert word in line


def test_archive_in_the_model_folder_is_extracted(root: Path) -> None:
    with tarfile.open(root / ARCHIVE_FILE, "w:gz") as tar:
        tar.add(root / "model", arcname=".")
    shutil.rmtree(root / "model")
    (root / "model").mkdir()
    shutil.move(root / ARCHIVE_FILE, root / "model")
    (root / "tmp").mkdir()
    with run_server(root, TMPDIR=str(root / "tmp")) as server:
        server.wait_until_ready()
        assert server.invoke(ROW).json == {"predictions": [[6.0]]}
        server.stop()
    assert list((root / "tmp").iterdir()) == []
    assert [path.name for path in (root / "model").iterdir()] == [ARCHIVE_FILE]


@pytest.mark.parametrize("missing_file", [MODEL_FILE, MANIFEST_FILE])
def test_incomplete_bundle_ends_the_job(root: Path, missing_file: str) -> None:
    (root / "model" / missing_file).unlink()
    with run_server(root) as server:
        assert server.wait() == 2
    assert f"has no {missing_file}" in (server.failure or "")


def test_invalid_model_ends_the_job(root: Path) -> None:
    (root / "model" / MODEL_FILE).write_bytes(b"no model")
    with run_server(root) as server:
        assert server.wait() == 2
    assert "ONNX Runtime" in (server.failure or "")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "many"),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "0"),
        ("SAGEMAKER_BIND_TO_PORT", "http"),
        ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "6MB"),
    ],
)
def test_malformed_variable_ends_the_job(root: Path, variable: str, value: str) -> None:
    with run_server(root, **{variable: value}) as server:
        assert server.wait() == 2
    assert value in (server.failure or "")


def test_port_in_use_ends_the_job(root: Path, server: Server) -> None:
    with run_server(root, SAGEMAKER_BIND_TO_PORT=str(server.port)) as second_server:
        assert second_server.wait() == 2
    assert f"cannot listen on port {server.port}" in (second_server.failure or "")


def test_serving_writes_nothing(root: Path) -> None:
    """Libraries must not write files either: ONNX Runtime, for example, can store telemetry."""
    (root / "tmp").mkdir()
    files = {*root.rglob("*")}
    with run_server(root, TMPDIR=str(root / "tmp"), HOME=str(root)) as server:
        server.wait_until_ready()
        assert server.invoke(ROW).status == 200
    assert {*root.rglob("*")} - files == {server.log_file}


def test_workers_that_keep_crashing_end_the_job(root: Path) -> None:
    program = "import os\ndef model_fn(model_dir):\n    os.kill(os.getpid(), 9)\n"
    (root / "model" / "code").mkdir()
    (root / "model" / "code" / "inference.py").write_text(program)
    with run_server(root) as server:
        assert server.wait() == 3
    assert "workers keep crashing" in (server.failure or "")


def test_sigterm_leaves_no_worker(root: Path) -> None:
    with run_server(root, SAGEMAKER_MODEL_SERVER_WORKERS="2") as server:
        server.wait_until_ready()
        pids = server.list_worker_pids()
        assert server.stop() == 0
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert server.failure is None


def test_idle_connections_do_not_delay_the_stop(root: Path) -> None:
    with run_server(root) as server:
        server.wait_until_ready()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/ping")
            connection.getresponse().read()
            start_time = time.monotonic()
            assert server.stop() == 0
    assert time.monotonic() - start_time < 20


def test_no_request_is_lost_while_stopping(root: Path) -> None:
    """Clients keep their connections until a response closes them. They stop when /ping no longer returns 200."""
    outcomes: list[object] = []
    with run_server(root) as server:
        server.wait_until_ready()
        stop = threading.Event()
        clients = [threading.Thread(target=invoke_until, args=(stop, server, outcomes)) for _ in range(4)]
        for client in clients:
            client.start()
        while len(outcomes) < 100:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        while server.request("GET", "/ping").status == 200:
            time.sleep(0.01)
        time.sleep(0.3)
        stop.set()
        for client in clients:
            client.join()
        assert server.wait() == 0
    assert set(outcomes) == {200}


def invoke_until(stop: threading.Event, server: Server, outcomes: list[object]) -> None:
    while not stop.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        with contextlib.closing(connection):
            is_closed = False
            while not is_closed and not stop.is_set():
                try:
                    connection.request("POST", "/invocations", ROW)
                    response = connection.getresponse()
                    response.read()
                    outcomes.append(response.status)
                    is_closed = response.will_close
                except OSError as error:
                    outcomes.append(repr(error))
                    is_closed = True


def test_second_sigterm_is_ignored(root: Path) -> None:
    with run_server_with_program(root, SLOW_PROGRAM) as server:
        replies: list[Reply] = []
        client = threading.Thread(target=lambda: replies.extend(invoke_in_parallel(server, ["1"])))
        client.start()
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        client.join()
    assert [reply.status for reply in replies] == [200]
