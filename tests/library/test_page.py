"""The programs of docs/using/testing.md."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.local.clients import run_server

PAGE = (REPOSITORY / "docs" / "using" / "testing.md").read_text(encoding="utf-8")
NOTEBOOK, BLOCK, TEST, SETTINGS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
"""The page's programs: code for a notebook, a program with a `with` block, a test for pytest, and its settings."""


def run_python(folder: Path, *arguments: str, **variables: str) -> str:
    """Run Python in a folder, with jobs as processes; return the output."""
    (folder / "microjobs.toml").write_text('[local]\nruntime = "process"\n')
    command, environment = [sys.executable, *arguments], {**os.environ, **variables}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.strip()


def test_notebook_finds_the_server(tmp_path: Path) -> None:
    with run_server(tmp_path / "home", runtime="process") as server:
        program = f"{NOTEBOOK}\nprint(server.url)"
        assert run_python(tmp_path, "-c", program, MICROJOBS_HOME=str(server.home.root)) == server.address.url


def test_program_with_a_block_prints_an_empty_list(tmp_path: Path) -> None:
    assert run_python(tmp_path, "-c", BLOCK) == "[]"


@pytest.mark.slow
def test_documented_test_passes_with_the_settings(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(SETTINGS.replace('"docker"', '"process"'))
    (tmp_path / "test_jobs.py").write_text(TEST)
    arguments = ("-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", "--basetemp=temporary")
    assert "1 passed" in run_python(tmp_path, *arguments)
