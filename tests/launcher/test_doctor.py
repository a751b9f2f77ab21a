"""`microjobs doctor` on this machine: each finding reports a state and its remedy."""

import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from microjobs_orchestrator import docker_engine, images
from microjobs_orchestrator.doctor import machine
from microjobs_orchestrator.doctor.check import Check, Finding, Level
from microjobs_orchestrator.doctor.machine import build_tools, engine
from microjobs_orchestrator.doctor.machine.build_tools import BuildTools
from microjobs_orchestrator.doctor.machine.engine import Engine
from microjobs_orchestrator.doctor.machine.images import Images
from microjobs_orchestrator.doctor.machine.local_packages import LocalPackages
from microjobs_orchestrator.doctor.machine.local_server import LocalServer
from microjobs_orchestrator.doctor.machine.package_index import PackageIndex
from microjobs_orchestrator.doctor.machine.process_runtime import ProcessRuntime
from microjobs_orchestrator.doctor.machine.python import Python
from microjobs_orchestrator.doctor.machine.resources import Resources
from microjobs_orchestrator.images import local_image
from microjobs_orchestrator.local.home import Home
from tests.conftest import JOBS


def run(check: Check) -> Finding:
    (finding,) = check.run()
    return finding


def test_unsupported_python_is_a_problem() -> None:
    finding = run(Python((3, 13, 1)))
    assert finding.level == "problem"
    assert "3.13.1" in finding.message
    assert run(Python((3, 11, 9))).level == "ok"


@pytest.mark.parametrize(
    ("error", "host", "context", "level", "remedy"),
    [
        ("Error while fetching: PermissionError(13, 'Permission denied')", "", "", "problem", "usermod"),
        ("Connection refused", "tcp://far:2375", "", "problem", "DOCKER_HOST"),
        (
            "No such file or directory",
            "",
            "unix:///home/me/.colima/docker.sock",
            "problem",
            "export DOCKER_HOST=unix:///",
        ),
        ("No such file or directory", "", engine.DEFAULT_SOCKET, "note", "install"),
    ],
)
def test_engine_that_does_not_answer_has_a_remedy(error: str, host: str, context: str, level: str, remedy: str) -> None:
    finding = engine.no_engine(error, host, context)
    assert finding.level == level
    assert remedy in finding.remedy


def test_silent_engine_is_a_problem() -> None:
    finding = run(Engine({"DOCKER_HOST": "tcp://127.0.0.1:9"}))
    assert finding.level == "problem"
    assert "tcp://127.0.0.1:9" in finding.message


@pytest.mark.parametrize(
    ("runtimes", "address", "messages"),
    [
        ({}, "unix:///var/run/docker.sock", ["Docker engine 28.1"]),
        ({"nvidia": {}}, "", ["Docker engine 28.1, with NVIDIA's runtime for GPUs"]),
        (
            {},
            "tcp://far:2375",
            [
                "Docker engine 28.1",
                "the Docker engine runs on another machine, tcp://far:2375, and cannot use this machine's folders",
            ],
        ),
    ],
)
def test_engine_that_answers(
    runtimes: dict[str, object], address: str, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    client = SimpleNamespace(
        version=lambda: {"Version": "28.1"}, info=lambda: {"Runtimes": runtimes}, close=lambda: closed.append(True)
    )
    monkeypatch.setattr(docker_engine, "connect", lambda **_: client)
    monkeypatch.setattr(engine, "context_address", str)
    findings = list(Engine({"DOCKER_HOST": address}).run())
    assert [finding.message for finding in findings] == messages
    assert [finding.level for finding in findings] == ["ok", "problem"][: len(messages)]
    assert closed


@pytest.mark.parametrize(
    ("output", "level"),
    [("2.26.1-4", "ok"), ("Docker Compose version v5.0.0", "ok"), ("2.24.3", "problem"), ("", "problem")],
)
def test_compose_version_is_compared(output: str, level: str) -> None:
    assert build_tools.compare("Compose", output, build_tools.MIN_COMPOSE).level == level


def test_missing_venv_is_a_problem_only_without_an_engine() -> None:
    required = run(ProcessRuntime(required=True, find_spec=lambda _name: None))
    optional = run(ProcessRuntime(required=False, find_spec=lambda _name: None))
    assert (required.level, optional.level) == ("problem", "note")


@pytest.mark.parametrize(("missing_bytes", "level"), [(0, "ok"), (1, "note")])
def test_little_disk_space_and_memory_are_noted(
    missing_bytes: int, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, memory = 8 * 2**30 - missing_bytes, 4 * 2**30 - missing_bytes
    sizes = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": memory}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(shutil, "disk_usage", {tmp_path: SimpleNamespace(free=free)}.__getitem__)
    findings = list(Resources(Home(tmp_path / "folder" / "home")).run())
    only = "" if level == "ok" else "only "
    assert [(finding.level, finding.message) for finding in findings] == [
        (level, f"{only}8.0 GB of disk space"),
        (level, f"{only}4.0 GB of memory"),
    ]
    assert all(bool(finding.remedy) == (level == "note") for finding in findings)


def test_missing_package_folder_is_a_problem(tmp_path: Path) -> None:
    assert not list(LocalPackages({"LOCAL_PACKAGES": str(tmp_path)}).run())
    assert run(LocalPackages({"LOCAL_PACKAGES": str(tmp_path / "gone")})).level == "problem"


def built(jobs: list[str], revision: str) -> dict[str, dict[str, str]]:
    return {local_image(job): {images.REVISION: revision} for job in jobs}


def test_missing_images_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "labels", lambda: built(JOBS[1:], "HEAD"))
    monkeypatch.setattr(images, "changed_since", lambda _job, _revision: False)
    finding = run(Images())
    assert finding.level == "problem"
    assert finding.remedy == f"microjobs build {JOBS[0]}"


def test_stale_images_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "labels", lambda: built(JOBS, "abc-dirty"))
    monkeypatch.setattr(images, "changed_since", lambda job, revision: (job, revision) == ("serve", "abc"))
    finding = run(Images())
    assert finding.level == "note"
    assert finding.remedy == "microjobs build serve"


@pytest.fixture
def index() -> Iterator[str]:
    """The address of a package index that knows pip alone."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/simple/pip/" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "level", "said"),
    [("/simple", "ok", "answers"), ("/simple/", "ok", "answers"), ("/other", "problem", "answers 404 for pip")],
)
def test_package_index_is_checked(index: str, path: str, level: str, said: str) -> None:
    finding = run(PackageIndex({"INDEX_URL": f"{index}{path}", "PIP_INDEX_URL": "http://127.0.0.1:9"}))
    assert finding.level == level
    assert said in finding.message


def test_tls_failure_has_a_remedy(index: str) -> None:
    finding = run(PackageIndex({"INDEX_URL": f"{index.replace('http:', 'https:')}/simple"}))
    assert finding.level == "problem"
    assert "set SSL_CERT_FILE" in finding.remedy


def test_silent_package_index_is_a_problem_and_its_password_is_hidden() -> None:
    finding = run(PackageIndex({"PIP_INDEX_URL": "http://anna:secret@127.0.0.1:9/simple"}))
    assert finding.level == "problem"
    assert "http://127.0.0.1:9/simple" in finding.message
    assert "secret" not in finding.message + finding.remedy
    assert "INDEX_URL" in finding.remedy


@pytest.mark.parametrize("level", ["ok", "note"])
def test_package_index_is_checked_without_an_engine(
    level: Level, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "run", lambda _self: iter([Finding(level, "engine")]))
    monkeypatch.setattr(BuildTools, "run", lambda _self: iter([Finding("ok", "tools")]))
    monkeypatch.setattr(Images, "run", lambda _self: iter([Finding("ok", "images")]))
    messages = [finding.message for finding in machine.examine(Home(tmp_path), {"INDEX_URL": "http://127.0.0.1:9"})]
    assert any("package index" in message for message in messages) == (level != "ok")
    assert ("tools" in messages, "images" in messages) == (level == "ok", level == "ok")
    checks = machine.checks(Home(tmp_path), {}, engine_available=level == "ok")
    assert ProcessRuntime(required=level != "ok") in checks


def test_file_of_a_dead_server_has_a_remedy(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert run(LocalServer(home)).message.startswith("no local server is running")
    home.server.write_text("{}")
    finding = run(LocalServer(home))
    assert (finding.level, finding.remedy) == ("note", "microjobs local down")
