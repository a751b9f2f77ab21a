"""Clients in virtual environments of their own, made from locks with hashes and kept between runs."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.local.conftest import local as local

ENVIRONMENTS = REPOSITORY / ".venv-clients"


@pytest.fixture(scope="session")
def sdk() -> Path:
    """Python with the SageMaker SDK v2."""
    return client_python(Path(__file__).parent / "sdk.lock")


def client_python(lock: Path) -> Path:
    """The interpreter of an environment that has what a lock says."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not here: it makes the clients' virtual environments")
    folder = ENVIRONMENTS / f"{lock.stem}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    done = folder / "complete"
    if not done.exists():
        for command in (
            ["venv", "--quiet", "--clear", "--python", "3.11", str(folder)],
            ["pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", str(lock)],
        ):
            subprocess.run([uv, *command], check=True)
        done.touch()
    return python
