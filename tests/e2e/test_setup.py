"""`make setup`, with a program `uv` that cannot reach the package index."""

import os
import subprocess
from pathlib import Path


def test_setup_error_suggests_ssl_cert_file(checkout: Path) -> None:
    uv = checkout / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text("#!/bin/sh\n[ $1 = --version ] || { echo 'invalid peer certificate: UnknownIssuer' >&2; exit 2; }\n")
    uv.chmod(0o755)
    environment = {**os.environ, "PATH": f"{uv.parent}:{os.environ['PATH']}"}
    result = subprocess.run(
        ["make", "setup"], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "UnknownIssuer\nsetup: the packages were not installed" in result.stderr
    assert "set SSL_CERT_FILE to a file with its CA certificate" in result.stderr
