"""A container registry on this machine, which requires a login."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.conftest import REQUIRE_ENGINE_VARIABLE

PASSWORD = "correct horse"  # noqa: S105  the password is valid only in these tests
# The bcrypt hash of that password: the registry accepts only bcrypt. `AWS` is the user of every ECR token.
BCRYPT_HASH = "$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2"
USERS = ("anna", "AWS")
TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class LocalRegistry:
    """A running registry."""

    port: int
    storage: Path

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def get(self, path: str) -> requests.Response:
        accept = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
        address = f"http://{self.host}/v2/{path}"
        return requests.get(address, auth=("anna", PASSWORD), headers={"Accept": accept}, timeout=TIMEOUT_SECONDS)

    def list_tags(self, name: str) -> list[str]:
        return list(self.get(f"{name}/tags/list").json().get("tags") or [])


@contextlib.contextmanager
def run_registry(folder: Path) -> Iterator[LocalRegistry]:
    """Run a registry that stores its files in a new folder."""
    program = shutil.which("docker-registry") or shutil.which("registry")
    if program is None:
        reason = "no registry is installed: apt-get install docker-registry"
        if os.environ.get(REQUIRE_ENGINE_VARIABLE):
            pytest.fail(reason)
        pytest.skip(reason)
    folder.mkdir()
    (folder / "users").write_text("".join(f"{user}:{BCRYPT_HASH}\n" for user in USERS))
    (folder / "config.yml").write_text(
        "version: 0.1\nlog: {level: info}\nhttp: {addr: '127.0.0.1:0'}\n"
        f"storage: {{filesystem: {{rootdirectory: '{folder}/storage'}}}}\n"
        f"auth: {{htpasswd: {{realm: test, path: '{folder}/users'}}}}\n"
    )
    command = [program, "serve", str(folder / "config.yml")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield LocalRegistry(_wait_for_port(process, folder / "log"), folder / "storage")
    finally:
        process.terminate()
        process.wait(TIMEOUT_SECONDS)


def _wait_for_port(process: "subprocess.Popen[bytes]", log: Path) -> int:
    """Return the port as soon as the registry's log states it."""
    for _ in range(TIMEOUT_SECONDS * 20):
        if match := re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text()):
            return int(match[1])
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError(f"the registry does not start: {log.read_text()}")
