"""What images say of the code they are made of."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    (tmp_path / "containers/job").mkdir(parents=True)
    (tmp_path / "containers/job/main.py").touch()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/module.py").touch()
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "all"]):
        user = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
        subprocess.run(["git", *user, *words], cwd=tmp_path, check=True)
    return tmp_path


def revision(repository: Path) -> str:
    command = ["make", "--silent", "--eval", "revision: ; @echo $$REVISION", "revision"]
    # `make test` gives its own to the tests.
    mine = {name: value for name, value in os.environ.items() if name not in ("REVISION", "MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(command, cwd=repository, env=mine, check=True, capture_output=True, text=True).stdout.strip()


def test_revision_is_the_commit(repository: Path) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True)
    assert revision(repository) == head.stdout.strip()


@pytest.mark.parametrize("name", ["containers/job/main.py", "containers/job/new.py", "shared/new.py"])
def test_file_that_no_commit_has_makes_it_dirty(repository: Path, name: str) -> None:
    (repository / name).write_text("changed")
    assert revision(repository).endswith("-dirty")
