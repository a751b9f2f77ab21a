"""Tests of the images of the ready-made jobs: which images exist, and how they are built."""

import os
import subprocess
from pathlib import Path

import pytest

from microjobs_orchestrator import images
from microjobs_orchestrator.failures import CommandError, UsageError
from tests.conftest import JOBS, REPOSITORY


@pytest.mark.parametrize(
    ("revision", "is_stale"),
    [
        ("4b825dc642cb6eb9a060e54bf8d69288fbee4904", True),  # this is the hash of git's empty tree
        ("4b825dc642cb6eb9a060e54bf8d69288fbee4904-dirty", True),
        ("no-such-revision", False),
    ],
)
def test_image_is_stale_if_its_files_have_changed(revision: str, is_stale: bool) -> None:
    assert images.is_stale("serve", {images.REVISION_LABEL: revision}) == is_stale
    assert not images.is_stale("serve", {})


def test_jobs_are_discovered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert images.list_jobs() == JOBS
    monkeypatch.setattr(images, "REPOSITORY", tmp_path)
    with pytest.raises(CommandError, match="clone of the repository"):
        images.list_jobs()


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
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "build: no Docker engine answers: start it (`microjobs doctor` prints a remedy)" in result.stderr


def test_build_refuses_an_unknown_job() -> None:
    with pytest.raises(UsageError, match=f"no job nothing exists: choose from {', '.join(JOBS)}"):
        images.build(["nothing"])


def test_only_trainers_have_a_cuda_variant() -> None:
    assert images.select_jobs([], "cuda") == ["train-pytorch", "train-tensorflow"]
    with pytest.raises(
        UsageError, match="no cuda variant of serve exists: choose from train-pytorch, train-tensorflow"
    ):
        images.select_jobs(["serve"], "cuda")


def test_repository_is_the_clone_of_the_tests() -> None:
    assert images.REPOSITORY == REPOSITORY
