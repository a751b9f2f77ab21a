"""A clone that was made with umask 077, so that only its owner can read it."""

import os
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.conftest import make_image_name


@pytest.mark.engine
def test_every_user_may_read_the_image(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAG", f"private-{uuid.uuid4().hex[:8]}")
    image = make_image_name("serve")
    subprocess.run(["chmod", "-R", "go=", checkout], check=True)
    try:
        subprocess.run(["make", "build/serve"], cwd=checkout, env=os.environ, check=True, capture_output=True)
        command = ["docker", "run", "--rm", "--user", "12345", image, "--help"]
        result = subprocess.run(command, check=False, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    finally:
        subprocess.run(["docker", "image", "rm", image], capture_output=True, check=False)
