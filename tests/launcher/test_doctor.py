"""Tests of `microjobs doctor` on this machine: each finding reports a state and its remedy."""

import importlib.util
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from microjobs_orchestrator import docker_engine, images
from microjobs_orchestrator.docker_engine import DEFAULT_SOCKET
from microjobs_orchestrator.doctor import machine
from microjobs_orchestrator.doctor.finding import Finding, Level
from microjobs_orchestrator.images import get_local_image_name
from microjobs_orchestrator.local.home import Home
from tests.conftest import JOBS


def test_unsupported_python_is_a_problem() -> None:
    finding = machine.check_python((3, 13, 1))
    assert finding.level == "problem"
    assert "3.13.1" in finding.message
    assert machine.check_python((3, 11, 9)).level == "ok"


@pytest.mark.parametrize(
    ("error", "address", "from_variable", "level", "remedy"),
    [
        ("Error while fetching: PermissionError(13, 'Permission denied')", DEFAULT_SOCKET, False, "problem", "usermod"),
        ("Connection refused", "tcp://far:2375", True, "problem", "unset DOCKER_HOST"),
        ("No such file", "unix:///home/me/.colima/docker.sock", False, "problem", "docker context use default"),
        ("No such file", DEFAULT_SOCKET, False, "note", "install"),
    ],
)
def test_unreachable_engine_has_a_remedy(
    error: str, address: str, from_variable: bool, level: str, remedy: str
) -> None:
    finding = machine.explain_unreachable_engine(error, address, from_variable=from_variable)
    assert finding.level == level
    assert remedy in finding.remedy


def test_unreachable_engine_of_docker_host_is_a_problem() -> None:
    (finding,) = machine.check_engine({"DOCKER_HOST": "tcp://127.0.0.1:9"})
    assert finding.level == "problem"
    assert "tcp://127.0.0.1:9" in finding.message


PODMAN = {"Version": "4.3.1", "Components": [{"Name": "Podman Engine"}]}
DOCKER = {"Version": "28.1"}
COPY_NOTE = "inputs are copied, except in FastFile mode"
ROOTLESS = {"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"]}
AWS_CLIENTS = "AWS clients in jobs connect through"


@pytest.mark.parametrize(
    ("version", "info", "address", "messages"),
    [
        (DOCKER, {"CgroupVersion": "1"}, "unix:///var/run/docker.sock", ["Docker engine 28.1"]),
        (DOCKER, {"Runtimes": {"nvidia": {}}}, "", ["Docker engine 28.1, with NVIDIA's runtime for GPUs"]),
        (
            DOCKER,
            {},
            "tcp://far:2375",
            ["Docker engine 28.1", f"the engine runs on another machine: inputs are copied, and {AWS_CLIENTS} it"],
        ),
        (
            DOCKER,
            {**ROOTLESS, "CgroupVersion": "2", "MemoryLimit": True, "CpuCfsQuota": True},
            "unix:///run/user/1000/docker.sock",
            ["Docker engine 28.1, rootless", f"{COPY_NOTE}, and {AWS_CLIENTS} the engine"],
        ),
        (
            DOCKER,
            {**ROOTLESS, "CgroupVersion": "2", "MemoryLimit": True, "CpuCfsQuota": False},  # `cpu` is not delegated
            "unix:///run/user/1000/docker.sock",
            [
                "Docker engine 28.1, rootless",
                f"{COPY_NOTE}, and {AWS_CLIENTS} the engine",
                docker_engine.NO_LIMITS_MESSAGE,
            ],
        ),
        (PODMAN, {"CgroupVersion": "1"}, "", ["Podman 4.3.1", COPY_NOTE]),
        (
            PODMAN,
            {"CgroupVersion": "1", "MemoryLimit": True, "rootless": True},
            "",
            ["Podman 4.3.1, rootless", f"{COPY_NOTE}, and {AWS_CLIENTS} the engine", docker_engine.NO_LIMITS_MESSAGE],
        ),
    ],
)
def test_engine_is_described(
    version: dict[str, object],
    info: dict[str, object],
    address: str,
    messages: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    close_calls: list[bool] = []
    podman_info = {"host": {"security": {"rootless": info.get("rootless", False)}}}
    response = SimpleNamespace(json=lambda: podman_info, raise_for_status=lambda: None)
    client = SimpleNamespace(
        address=address,
        version=lambda: version,
        info=lambda: info,
        close=lambda: close_calls.append(True),
        api=SimpleNamespace(base_url="", timeout=1, get=lambda *_, **__: response),
    )
    monkeypatch.setattr(docker_engine, "connect", lambda **_: client)
    findings = list(machine.check_engine({"DOCKER_HOST": address}))
    assert [finding.message for finding in findings] == messages
    assert [finding.level for finding in findings] == ["ok", *["note"] * (len(messages) - 1)]
    assert all(finding.remedy for finding in findings[1:])
    assert close_calls


def test_rootless_engine_that_the_docker_cli_does_not_use_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    monkeypatch.setattr(docker_engine, "DEFAULT_SOCKET", f"unix://{tmp_path}/missing.sock")
    monkeypatch.setattr(docker_engine, "find_address", lambda _: docker_engine.DEFAULT_SOCKET)
    (finding_without_socket,) = machine.check_engine(environ)
    assert "DOCKER_HOST" not in finding_without_socket.remedy
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/docker.sock")
        (finding,) = machine.check_engine(environ)
    assert finding.remedy == f"use your rootless engine: `export DOCKER_HOST=unix://{tmp_path}/docker.sock`"


def test_images_that_run_emulated_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    architectures = {"mine:1": "amd64", "native:1": "arm64"}
    client = SimpleNamespace(
        version=lambda: {"Version": "28.1", "Arch": "arm64"},
        info=dict,
        close=lambda: None,
        api=SimpleNamespace(images=lambda: [{"RepoTags": list(architectures)}, {"RepoTags": None}]),
        images=SimpleNamespace(get=lambda name: SimpleNamespace(attrs={"Architecture": architectures[name]})),
    )
    monkeypatch.setattr(docker_engine, "connect", lambda **_: client)
    _, note = machine.check_engine({})
    assert note.level == "note"
    assert note.message == "images for an architecture other than the engine's (arm64) run emulated: mine:1 (amd64)"
    assert "linux/arm64" in note.remedy


@pytest.mark.parametrize(
    ("output", "level"),
    [("2.26.1-4", "ok"), ("Docker Compose version v5.0.0", "ok"), ("2.24.3", "problem"), ("", "problem")],
)
def test_compose_version_is_compared(output: str, level: str) -> None:
    assert machine.check_plugin("Compose", output, machine.MIN_COMPOSE_VERSION).level == level


@pytest.mark.parametrize(("required", "level"), [(True, "problem"), (False, "note")])
def test_missing_venv_is_a_problem_only_without_an_engine(
    required: bool, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert machine.check_process_runtime(required=required).level == level


@pytest.mark.parametrize(("missing_bytes", "level"), [(0, "ok"), (1, "note")])
def test_little_disk_space_and_memory_are_noted(
    missing_bytes: int, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, memory = 8 * 2**30 - missing_bytes, 4 * 2**30 - missing_bytes
    sizes = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": memory}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(shutil, "disk_usage", {tmp_path: SimpleNamespace(free=free)}.__getitem__)
    findings = list(machine.check_disk_and_memory(Home(tmp_path / "folder" / "home")))
    prefix = "" if level == "ok" else "only "
    assert [(finding.level, finding.message) for finding in findings] == [
        (level, f"{prefix}8.0 GB of disk space"),
        (level, f"{prefix}4.0 GB of memory"),
    ]
    assert all(bool(finding.remedy) == (level == "note") for finding in findings)


def test_read_only_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", {tmp_path: SimpleNamespace(f_flag=os.ST_RDONLY | os.ST_NOSUID)}.__getitem__)
    finding, _ = machine.check_disk_and_memory(Home(tmp_path / "home"))
    assert (finding.level, finding.message) == ("problem", f"the disk of {tmp_path} is read-only")
    assert "MICROJOBS_HOME" in finding.remedy


def test_missing_package_folder_is_a_problem(tmp_path: Path) -> None:
    assert not list(machine.check_local_packages({"LOCAL_PACKAGES": str(tmp_path)}))
    (finding,) = machine.check_local_packages({"LOCAL_PACKAGES": str(tmp_path / "missing")})
    assert finding.level == "problem"


def make_labels(jobs: list[str], revision: str) -> dict[str, dict[str, str]]:
    return {get_local_image_name(job): {images.REVISION_LABEL: revision} for job in jobs}


def test_missing_images_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "read_image_labels", lambda: make_labels(JOBS[1:], "HEAD"))
    monkeypatch.setattr(images, "is_stale", lambda _job, _labels: False)
    (finding,) = machine.check_images()
    assert finding.level == "problem"
    assert finding.remedy == f"microjobs build {JOBS[0]}"


def test_missing_repository_is_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Users who only start the server for their own images need no clone."""
    monkeypatch.setattr(images, "REPOSITORY", tmp_path)
    (finding,) = machine.check_images()
    assert (finding.level, finding.remedy) == ("note", "git clone https://github.com/microjobs/microjobs")


def test_stale_images_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "read_image_labels", lambda: make_labels(JOBS, "abc"))
    stale = ("serve", {images.REVISION_LABEL: "abc"})
    monkeypatch.setattr(images, "is_stale", lambda job, labels: (job, labels) == stale)
    (finding,) = machine.check_images()
    assert finding.level == "note"
    assert finding.remedy == "microjobs build serve"


@pytest.fixture
def index_url() -> Iterator[str]:
    """The address of a package index that contains only pip."""

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
    ("path", "level", "text"),
    [("/simple", "ok", "answers"), ("/simple/", "ok", "answers"), ("/other", "problem", "answers 404 for pip")],
)
def test_package_index_is_checked(index_url: str, path: str, level: str, text: str) -> None:
    finding = machine.check_package_index({"INDEX_URL": f"{index_url}{path}", "PIP_INDEX_URL": "http://127.0.0.1:9"})
    assert finding.level == level
    assert text in finding.message


def test_tls_failure_has_a_remedy(index_url: str) -> None:
    finding = machine.check_package_index({"INDEX_URL": f"{index_url.replace('http:', 'https:')}/simple"})
    assert finding.level == "problem"
    assert "set SSL_CERT_FILE" in finding.remedy


def test_unreachable_package_index_is_a_problem_and_its_password_is_hidden() -> None:
    finding = machine.check_package_index({"PIP_INDEX_URL": "http://anna:secret@127.0.0.1:9/simple"})
    assert finding.level == "problem"
    assert "http://127.0.0.1:9/simple" in finding.message
    assert "secret" not in finding.message + finding.remedy
    assert "INDEX_URL" in finding.remedy


@pytest.mark.parametrize("level", ["ok", "note"])
def test_package_index_is_checked_only_without_an_engine(
    level: Level, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "check_engine", lambda _environ: [Finding(level, "engine")])
    monkeypatch.setattr(machine, "check_build_tools", lambda: [Finding("ok", "tools")])
    monkeypatch.setattr(machine, "check_images", lambda: [Finding("ok", "images")])
    messages = [finding.message for finding in machine.examine(Home(tmp_path), {"INDEX_URL": "http://127.0.0.1:9"})]
    assert any("package index" in message for message in messages) == (level != "ok")
    assert ("tools" in messages, "images" in messages) == (level == "ok", level == "ok")
    assert ("jobs can also run as processes" in messages) == (level == "ok")


def test_file_of_a_killed_server_has_a_remedy(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert machine.check_local_server(home).message.startswith("no local server is running")
    home.server_file.write_text("{}")
    finding = machine.check_local_server(home)
    assert (finding.level, finding.remedy) == ("note", "microjobs local down")
