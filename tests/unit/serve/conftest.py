"""The serve job, started as its image starts it, and a client."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from microjobs.contract import Layout, read_failure
from microjobs.scaler import Scaler
from tests.bundles import write_linear_bundle
from tests.conftest import CONTAINERS, REPOSITORY
from tests.forks import Fork
from tests.ports import find_free_port

JOB_FOLDER = CONTAINERS / "serve"

FEATURE_COUNT = 3
SCALER = Scaler(count=[10] * FEATURE_COUNT, mean=[1.0, 2.0, 3.0], scale=[2.0, 2.0, 4.0])


@dataclass(frozen=True)
class Reply:
    """A response of the server, as a client receives it."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """Return the message of an error body."""
        assert self.headers["content-type"] == "application/json"
        assert list(self.json) == ["error"]
        assert "Traceback" not in self.json["error"]
        return str(self.json["error"])


@dataclass
class Server:
    """A running serve job."""

    layout: Layout
    port: int
    log_file: Path
    process: Fork | subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def find_logged_problems(self) -> list[str]:
        return [line for line in self.log.splitlines() if any(word in line for word in ("WARN", "ERROR", "Traceback"))]

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, fields)
            response = connection.getresponse()
            response_headers = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, response_headers, response.read())

    def invoke(self, body: bytes | str, content_type: str = "application/json", **headers: str) -> Reply:
        data = body.encode() if isinstance(body, str) else body
        return self.request("POST", "/invocations", data, Content_Type=content_type, **headers)

    def wait_until_ready(self, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if self.request("GET", "/ping").status == 200:
                    return
            time.sleep(0.02)
        raise AssertionError(f"no 200 on /ping within {seconds} s:\n{self.log}")

    def list_worker_pids(self) -> list[int]:
        (job,) = _list_children(self.process.pid)
        return _list_children(job)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, seconds: float = 120) -> int:
        return self.process.wait(seconds)

    @property
    def failure(self) -> str | None:
        return read_failure(self.layout)


def _list_children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.contextmanager
def run_server(root: Path, **environment: str) -> Iterator[Server]:
    """Run a serve job on the model folder below `root` until the block ends."""
    port = find_free_port()
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY / "shared"),
        "MICROJOBS_JOB": str(JOB_FOLDER),
        "SAGEMAKER_BASE_DIR": str(root),
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
    }
    log = root / "log.txt"
    log.write_bytes(b"")  # the log must not contain the output of an earlier server
    process = Fork(["-m", "microjobs", "serve"], variables | environment, Path("/"), log)
    try:
        yield Server(Layout(root), port, log, process)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(120)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of the contract's folders, with a model that sums its three features."""
    write_linear_bundle(tmp_path / "model", [1.0] * FEATURE_COUNT, 0.0, SCALER)
    return tmp_path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with two workers for all tests of a module. It must log no warnings and no errors."""
    root = tmp_path_factory.mktemp("serve")
    write_linear_bundle(root / "model", [1.0] * FEATURE_COUNT, 0.0, SCALER)
    with run_server(root, SAGEMAKER_MODEL_SERVER_WORKERS="2") as running_server:
        running_server.wait_until_ready()
        yield running_server
    assert running_server.process.returncode == 0
    assert running_server.find_logged_problems() == []


@pytest.fixture
def clean_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore `sys.path`, and remove the modules that the test imports from its folder."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
