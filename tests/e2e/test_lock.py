"""`make lock` and `make lock/JOB`, with a program `uv` that cannot reach PyTorch's index."""

import os
import subprocess
from pathlib import Path

import pytest

from microjobs.locks import explain_stale_lock
from tests.conftest import CONTAINERS, REPOSITORY

SOURCES = [REPOSITORY / "shared" / "requirements.in", *sorted(CONTAINERS.glob("*/c*.in"))]
FAKE_UV = """#!/bin/bash
for word in "$@"; do
    case $word in
        *download.pytorch.org*) echo "error: no such host" >&2; exit 2 ;;
    esac
    if [[ ${previous:-} == --output-file ]]; then lock=$word; fi
    previous=$word
done
if [[ ${lock:-} ]]; then echo "# locked" >"$lock"; fi
"""


@pytest.fixture
def repository(checkout: Path) -> Path:
    uv = checkout / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(FAKE_UV)
    uv.chmod(0o755)
    return checkout


def run_lock(repository: Path, target: str, **variables: str) -> subprocess.CompletedProcess[str]:
    removed_names = ("TORCH_INDEX_URL", "WHEELS", "MAKEFLAGS", "MAKELEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in removed_names}
    environment["PATH"] = f"{repository / 'bin'}:{environment['PATH']}"
    command = ["make", "--silent", target]
    return subprocess.run(
        command, cwd=repository, env=environment | variables, check=False, capture_output=True, text=True
    )


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_locks_are_made_from_their_requirements(source: Path) -> None:
    assert explain_stale_lock(source) == ""


def test_lock_of_one_job_needs_only_its_packages(repository: Path) -> None:
    source = repository / "containers" / "preprocess" / "cpu.in"
    source.write_text("polars\n")
    result = run_lock(repository, "lock/preprocess")
    assert (result.returncode, result.stdout, result.stderr) == (0, "containers/preprocess/cpu.lock\n", "")
    assert explain_stale_lock(source) == ""


def test_unreachable_index_is_reported_and_other_locks_are_written(repository: Path) -> None:
    result = run_lock(repository, "lock")
    assert result.returncode == 2
    assert "containers/train-pytorch/cpu.in needs https://download.pytorch.org/whl/cpu" in result.stderr
    assert "set WHEELS=/folder" in result.stderr
    assert "all other locks are written; not written: containers/train-pytorch/cpu.in" in result.stderr
    locked = {path for path in repository.glob("*/*/*.lock") if path.read_text().endswith("# locked\n")}
    assert len(locked) > 10
    assert repository / "containers" / "train-tensorflow" / "cpu.lock" in locked, (
        "`make lock` writes this lock after it has failed to make PyTorch's lock"
    )


def test_wheels_replace_the_index(repository: Path) -> None:
    assert run_lock(repository, "lock/train-pytorch", WHEELS="/wheels").returncode == 0


def test_unknown_job_is_reported(repository: Path) -> None:
    assert "job nothing does not exist" in run_lock(repository, "lock/nothing").stderr
