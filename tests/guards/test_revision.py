"""Checks of `make build`, and the revision labels of images."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

TOOL_FILES = ("Makefile", "orchestrator/__init__.py", "orchestrator/sources.py", "scripts/revision.py")
LOCKS_MODULE = "shared/microjobs/locks.py"
FAKE_DOCKER = """#!/bin/sh
case $1 in compose) echo "$REVISION" ;; buildx) cat ;; esac
"""
"""Program that replaces `docker`. It builds nothing, and prints the revision of the image that it would build."""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with two committed jobs, and a program `docker` that builds no images."""
    files = {
        "bin/docker": FAKE_DOCKER,
        "containers/Dockerfile": "",
        "containers/other/image.yml": "",
        "containers/job/main.py": "",
        **{f"containers/job/{name}": "" for name in ("image.yml", "cpu.in", "cpu.lock")},
        **{f"shared/requirements.{name}": "" for name in ("in", "lock")},
    }
    for name in (*TOOL_FILES, LOCKS_MODULE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    (tmp_path / "microjobs_orchestrator").symlink_to("orchestrator")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "bin" / "docker").chmod(0o755)
    for source in ("containers/job/cpu.in", "shared/requirements.in"):
        subprocess.run(["python3", LOCKS_MODULE, "stamp", source], cwd=tmp_path, check=True)
    commit(tmp_path)
    return tmp_path


def commit(repository: Path) -> str:
    user = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *user, *arguments], cwd=repository, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True)
    return head.stdout.strip()


def build(repository: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    # `make test` has set these variables, and they would change the build
    environment = {
        name: value for name, value in os.environ.items() if name not in ("REVISION", "MAKEFLAGS", "MAKELEVEL")
    }
    environment["PATH"] = f"{repository / 'bin'}:{environment['PATH']}"
    command = ["make", "--silent", "build/job"]
    return subprocess.run(
        command, cwd=repository, env=environment | variables, check=False, capture_output=True, text=True
    )


def read_revision(repository: Path, **variables: str) -> str:
    return build(repository, **variables).stdout.strip()


def test_revision_is_the_commit(repository: Path) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True)
    assert read_revision(repository) == head.stdout.strip()
    assert read_revision(repository, REVISION="1.0") == "1.0"


@pytest.mark.parametrize(
    "name",
    ["containers/job/main.py", "containers/job/new.py", "containers/Dockerfile", "containers/bin/new", LOCKS_MODULE],
)
def test_uncommitted_file_makes_an_image_dirty(repository: Path, name: str) -> None:
    path = repository / name
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text() if path.exists() else "") + "# changed")
    assert read_revision(repository).endswith("-dirty")


@pytest.mark.parametrize(
    "name",
    ["README.md", "containers/job/README.md", "containers/job/tests/new.py", "containers/other/new.py", "docs/new"],
)
def test_file_outside_of_an_image_does_not_make_it_dirty(repository: Path, name: str) -> None:
    head = read_revision(repository)
    (repository / name).parent.mkdir(exist_ok=True)
    (repository / name).write_text("changed")
    assert read_revision(repository) == head


def test_folder_without_git_has_no_revision(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(repository / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(repository.parent))
    assert read_revision(repository) == "unknown"


@pytest.mark.parametrize(
    ("name", "content", "command"),
    [
        ("containers/job/cpu.in", "polars\n", "make lock/job"),
        ("shared/requirements.in", "numpy>=2\n", "make lock"),
    ],
)
def test_outdated_lock_stops_the_build(name: str, content: str, command: str, repository: Path) -> None:
    (repository / name).write_text(content)
    result = build(repository)
    assert (result.returncode, result.stdout) == (2, "")
    lock = Path(name).with_suffix(".lock").name
    errors = [line for line in result.stderr.splitlines() if not line.startswith("make: ***")]
    assert errors == [f"lock: {name} was changed, and {lock} was not made from it: run `{command}`"]


def test_changed_comment_does_not_make_a_lock_outdated(repository: Path) -> None:
    (repository / "containers/job/cpu.in").write_text("# nothing yet\n\n")
    assert build(repository).returncode == 0
