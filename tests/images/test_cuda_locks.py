"""Locks of the CUDA variants of images. Each CI run checks the locks, because the images are too large to build."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

LOCKS = sorted((REPOSITORY / "containers").glob("*/cuda.lock"))
OFFLINE_ERRORS = ("error sending request", "dns error", "Network is unreachable", "Failed to fetch")


def dry_run_installation(lock: Path, folder: Path) -> str:
    """Return uv's output. It has a line for each package that uv would install from a lock on SageMaker's machines."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    command = [uv, "pip", "install", "--dry-run", "--require-hashes", "--requirements", str(lock)]
    target = ["--target", str(folder), "--python-platform", "x86_64-manylinux_2_28", "--python-version", "3.11"]
    result = subprocess.run([*command, *target], capture_output=True, text=True, check=False)
    if any(text in result.stderr for text in OFFLINE_ERRORS):
        pytest.skip("no package index can be reached")
    assert result.returncode == 0, result.stderr
    return result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.parent.name)
def test_cuda_lock_resolves_with_its_hashes(lock: Path, tmp_path: Path) -> None:
    packages = re.findall(r"^ \+ (\S+)==", dry_run_installation(lock, tmp_path), re.MULTILINE)
    assert [name for name in packages if name.startswith("nvidia-cu")], "the lock has no CUDA library"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.parent.name)
def test_cuda_lock_has_the_versions_of_the_cpu_lock(lock: Path) -> None:
    cpu, cuda = (read_pins(path) for path in (lock.with_name("cpu.lock"), lock))
    different_names = {name for name in cpu.keys() & cuda.keys() if cpu[name] != cuda[name]}
    assert different_names == set()


def read_pins(lock: Path) -> dict[str, str]:
    """Return versions by name, without the local part (`+cpu` of 2.13.0+cpu)."""
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ +]+)", lock.read_text(), re.MULTILINE))
