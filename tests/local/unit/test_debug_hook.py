"""Tests of the module `sitecustomize`, which lets the user's programs wait for a debugger."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from microjobs_orchestrator.local import debug_hook

HOOK = debug_hook.__path__[0]
INSTALLED_SCRIPT = str(Path(sysconfig.get_path("scripts")) / "pytest")


def run_program(folder: Path, *arguments: str, search_path_suffix: str = "", **variables: str) -> str:
    """Run a Python program whose debugger cannot listen, because the address is invalid; return the output.

    Each test has its own copy of the hook, as each job has, because only one of the processes that use a copy waits.
    """
    (folder / "train.py").write_text("print('runs')")
    shutil.copytree(HOOK, folder / "hook", dirs_exist_ok=True)
    path = f"{folder / 'hook'}{search_path_suffix}"
    environment = {**os.environ, "PYTHONPATH": path, "MICROJOBS_DEBUG_ADDRESS": "127.0.0.1:none", **variables}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return result.stdout + result.stderr


@pytest.mark.parametrize("arguments", [("train.py",), ("-m", "train"), ("-u", "-m", "train", "--epochs", "3")])
def test_scripts_and_modules_of_the_user_wait(arguments: tuple[str, ...], tmp_path: Path) -> None:
    output = run_program(tmp_path, *arguments)
    assert "[microjobs] train" in output
    assert "runs without a debugger: ValueError" in output
    assert output.startswith("runs\n")  # an error of the debugger does not end the program


@pytest.mark.parametrize(
    "arguments",
    [("-c", "pass"), ("-m", "pip", "--version"), (INSTALLED_SCRIPT, "--version"), ("-m", "json.tool", "-h")],
)
def test_installed_programs_do_not_wait(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert "[microjobs]" not in run_program(tmp_path, *arguments)


@pytest.mark.parametrize(
    ("pattern", "arguments", "waits"),
    [
        ("json.tool", ("-m", "json.tool", "-h"), True),
        ("*/bin/pytest", (INSTALLED_SCRIPT, "--version"), True),
        ("train*", ("train.py",), True),
        ("other.py", ("train.py",), False),
    ],
)
def test_pattern_selects_the_program(pattern: str, arguments: tuple[str, ...], waits: bool, tmp_path: Path) -> None:
    output = run_program(tmp_path, *arguments, MICROJOBS_DEBUG_SCRIPT=pattern)
    assert ("runs without a debugger" in output) == waits


def test_only_one_process_waits(tmp_path: Path) -> None:
    """The hook removes the variable. Here the parent sets it again, and its child must still not wait."""
    code = "import os, subprocess, sys; os.environ['MICROJOBS_DEBUG_ADDRESS'] = 'x:none'; subprocess.run(sys.argv[1:])"
    (tmp_path / "parent.py").write_text(code)
    output = run_program(tmp_path, "parent.py", sys.executable, "train.py")
    assert output.count("runs without a debugger") == 1
    assert "[microjobs] parent.py" in output


def test_sitecustomize_of_the_image_is_also_imported(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "sitecustomize.py").write_text("print('of the image')")
    output = run_program(tmp_path, "-c", "print('program')", search_path_suffix=f":{tmp_path / 'image'}")
    assert output == "of the image\nprogram\n"
