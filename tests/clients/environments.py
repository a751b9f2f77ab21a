"""Clients in virtual environments of their own, made from locks with hashes and kept between runs."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

ENVIRONMENTS = REPOSITORY / ".venv-clients"


def client_programs(client: str) -> Path:
    """The folder of the programs, `python` among them, that a client's lock gives: `sdk`, `aws`."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not here: it makes the clients' virtual environments")
    lock = Path(__file__).with_name(f"{client}.lock")
    folder = ENVIRONMENTS / f"{client}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    done = folder / "complete"
    if not done.exists():
        for command in (
            ["venv", "--quiet", "--clear", "--python", "3.11", str(folder)],
            ["pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", str(lock)],
        ):
            subprocess.run([uv, *command], check=True)
        done.touch()
    return python.parent
