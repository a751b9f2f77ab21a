"""Each finding says what is the matter and what mends it."""

import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from microjobs_orchestrator import doctor, images
from microjobs_orchestrator.failures import LauncherError, UsageError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.workflows.place import local_image
from tests.conftest import JOBS, REPOSITORY


def test_wrong_python_is_to_be_mended() -> None:
    finding = doctor.python((3, 13, 1))
    assert finding.level == "mend"
    assert "3.13.1" in finding.message
    assert doctor.python((3, 11, 9)).level == "well"


@pytest.mark.parametrize(
    ("error", "host", "context", "level", "remedy"),
    [
        ("Error while fetching: PermissionError(13, 'Permission denied')", "", "", "mend", "usermod"),
        ("Connection refused", "tcp://far:2375", "", "mend", "DOCKER_HOST"),
        ("No such file or directory", "", "unix:///home/me/.colima/docker.sock", "mend", "export DOCKER_HOST=unix:///"),
        ("No such file or directory", "", doctor.DEFAULT_SOCKET, "note", "install"),
    ],
)
def test_engine_that_does_not_answer_has_a_remedy(error: str, host: str, context: str, level: str, remedy: str) -> None:
    finding = doctor.no_engine(error, host, context)
    assert finding.level == level
    assert remedy in finding.remedy


def test_silent_engine_address_is_found_out() -> None:
    findings = list(doctor.engine_findings({"DOCKER_HOST": "tcp://127.0.0.1:9"}))
    assert [finding.level for finding in findings] == ["mend"]
    assert "tcp://127.0.0.1:9" in findings[0].message


@pytest.mark.parametrize(
    ("output", "level"),
    [("2.26.1-4", "well"), ("Docker Compose version v5.0.0", "well"), ("2.24.3", "mend"), ("", "mend")],
)
def test_compose_version_is_compared(output: str, level: str) -> None:
    assert doctor.tool("Compose", output, doctor.COMPOSE).level == level


def test_python_without_venv_matters_only_without_an_engine() -> None:
    (needed,) = doctor.process_runtime(required=True, find=lambda _name: None)
    (spare,) = doctor.process_runtime(required=False, find=lambda _name: None)
    assert (needed.level, spare.level) == ("mend", "note")


def test_little_disk_space_is_noted() -> None:
    assert doctor.amount("disk space", 1 << 30, 8 << 30, "free some").message == "only 1.0 GB of disk space"
    assert doctor.amount("disk space", 9 << 30, 8 << 30, "free some").level == "well"


def test_missing_folder_of_packages_is_to_be_mended(tmp_path: Path) -> None:
    assert not list(doctor.local_packages({"LOCAL_PACKAGES": str(tmp_path)}))
    (finding,) = doctor.local_packages({"LOCAL_PACKAGES": str(tmp_path / "gone")})
    assert finding.level == "mend"


def built(jobs: list[str], revision: str) -> dict[str, dict[str, str]]:
    return {local_image(job): {images.REVISION: revision} for job in jobs}


def test_images_that_are_not_built_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "labels", lambda: built(JOBS[1:], "HEAD"))
    monkeypatch.setattr(images, "changed_since", lambda _job, _revision: False)
    (finding,) = doctor.image_findings()
    assert finding.level == "mend"
    assert finding.remedy == f"microjobs build {JOBS[0]}"


def test_stale_images_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "labels", lambda: built(JOBS, "abc-dirty"))
    monkeypatch.setattr(images, "changed_since", lambda job, revision: (job, revision) == ("serve", "abc"))
    (finding,) = doctor.image_findings()
    assert finding.level == "note"
    assert finding.remedy == "microjobs build serve"


def test_change_since_a_revision_is_seen_by_git() -> None:
    first = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git's empty tree
    assert images.changed_since("serve", first) is True
    assert images.changed_since("serve", "no-such-revision") is None


def test_jobs_are_discovered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert images.jobs() == JOBS
    monkeypatch.setattr(images, "REPOSITORY", tmp_path)
    with pytest.raises(LauncherError, match="clone of the repository"):
        images.jobs()


def test_build_calls_the_makefile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "containers" / "serve").mkdir(parents=True)
    (tmp_path / "containers" / "serve" / "image.yml").touch()
    (tmp_path / "Makefile").write_text("build/%:\n\t@echo $* > built\n")
    monkeypatch.setattr(images, "REPOSITORY", tmp_path)
    assert images.build([]) == 0
    assert (tmp_path / "built").read_text() == "serve\n"


def test_build_without_an_engine_has_a_remedy() -> None:
    environment = {**os.environ, "DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    command = ["make", "--no-print-directory", "build/serve"]
    made = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode != 0
    assert "build: no Docker engine answers: start it (`microjobs doctor` says more)" in made.stderr


def test_build_refuses_an_unknown_job() -> None:
    with pytest.raises(UsageError, match=f"no job nothing: there are {', '.join(JOBS)}"):
        images.build(["nothing"])


def test_only_trainers_have_a_cuda_variant() -> None:
    assert images.chosen([], "cuda") == ["train-pytorch", "train-tensorflow"]
    with pytest.raises(UsageError, match="no cuda variant of serve: there are train-pytorch, train-tensorflow"):
        images.chosen(["serve"], "cuda")


def test_repository_is_this_one() -> None:
    assert images.REPOSITORY == REPOSITORY


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
    [("/simple", "well", "answers"), ("/simple/", "well", "answers"), ("/other", "mend", "answers 404 for pip")],
)
def test_package_index_is_asked(index: str, path: str, level: str, said: str) -> None:
    finding = doctor.package_index({"INDEX_URL": f"{index}{path}", "PIP_INDEX_URL": "http://127.0.0.1:9"})
    assert finding.level == level
    assert said in finding.message


def test_certificate_of_a_gateway_is_the_remedy_where_tls_fails(index: str) -> None:
    finding = doctor.package_index({"INDEX_URL": f"{index.replace('http:', 'https:')}/simple"})
    assert finding.level == "mend"
    assert "set SSL_CERT_FILE" in finding.remedy


def test_silent_package_index_is_to_be_mended_and_its_password_hidden() -> None:
    finding = doctor.package_index({"PIP_INDEX_URL": "http://anna:secret@127.0.0.1:9/simple"})
    assert finding.level == "mend"
    assert "http://127.0.0.1:9/simple" in finding.message
    assert "secret" not in finding.message + finding.remedy
    assert "INDEX_URL" in finding.remedy


@pytest.mark.parametrize("engine", ["well", "note"])
def test_package_index_matters_only_without_an_engine(
    engine: doctor.Level, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "engine_findings", lambda _environ: [doctor.Finding(engine, "engine")])
    monkeypatch.setattr(doctor, "tools", list)
    monkeypatch.setattr(doctor, "image_findings", list)
    findings = list(doctor.examine(Home(tmp_path), {"INDEX_URL": "http://127.0.0.1:9"}))
    assert any("package index" in finding.message for finding in findings) == (engine != "well")
