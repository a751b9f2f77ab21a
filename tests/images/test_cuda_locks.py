"""The CUDA variants, which are too large to be built in each CI run: their locks hold all that they need."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

LOCKS = sorted((REPOSITORY / "containers").glob("*/cuda.lock"))
OFFLINE = ("error sending request", "dns error", "Network is unreachable", "Failed to fetch")


def installed(lock: Path, folder: Path) -> str:
    """What uv would install from a lock on SageMaker's machines, a line each; nothing is downloaded but names."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not here: it resolves the locks")
    command = [uv, "pip", "install", "--dry-run", "--require-hashes", "--requirements", str(lock)]
    target = ["--target", str(folder), "--python-platform", "x86_64-manylinux_2_28", "--python-version", "3.11"]
    done = subprocess.run([*command, *target], capture_output=True, text=True, check=False)
    if any(words in done.stderr for words in OFFLINE):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.parent.name)
def test_cuda_lock_resolves_with_its_hashes(lock: Path, tmp_path: Path) -> None:
    packages = re.findall(r"^ \+ (\S+)==", installed(lock, tmp_path), re.MULTILINE)
    assert [name for name in packages if name.startswith("nvidia-cu")], "no CUDA library is in it"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.parent.name)
def test_cuda_lock_has_the_versions_of_the_cpu_lock(lock: Path) -> None:
    cpu, cuda = (pins(path) for path in (lock.with_name("cpu.lock"), lock))
    different = {name for name in cpu.keys() & cuda.keys() if cpu[name] != cuda[name]}
    assert different == set()


def pins(lock: Path) -> dict[str, str]:
    """Versions by name, without the local part, such as of 2.13.0+cpu."""
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ +]+)", lock.read_text(), re.MULTILINE))
