"""A registry with a login, a git repository with a commit, and images that are built from it."""

import contextlib
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
import requests
from docker.errors import ImageNotFound

from microjobs_orchestrator import images
from microjobs_orchestrator.cli import main
from microjobs_orchestrator.local.home import HOME
from microjobs_orchestrator.push import credentials
from microjobs_orchestrator.push.tags import Image
from tests.conftest import REQUIRE_ENGINE
from tests.push import tiny_image

HEAD = "0123456789abcdef0123456789abcdef01234567"
PASSWORD = "correct horse"  # noqa: S105 - of the test registry
# The bcrypt hash of that password: the registry accepts only bcrypt. `AWS` is the user of every ECR token.
BCRYPT_HASH = "$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2"
USERS = ("anna", "AWS")
TIMEOUT_SECONDS = 30


def image(job: str = "serve", revision: str = HEAD, platform: str = "linux/amd64") -> Image:
    return Image(job, f"microjobs/{job}:dev", "sha256:" + "5" * 64, revision, platform)


@dataclass(frozen=True)
class LocalRegistry:
    """A registry on this machine."""

    port: int
    storage: Path

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def get(self, path: str) -> requests.Response:
        accept = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
        address = f"http://{self.host}/v2/{path}"
        return requests.get(address, auth=("anna", PASSWORD), headers={"Accept": accept}, timeout=TIMEOUT_SECONDS)

    def tags(self, name: str) -> list[str]:
        return list(self.get(f"{name}/tags/list").json().get("tags") or [])


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LocalRegistry]:
    program = shutil.which("docker-registry") or shutil.which("registry")
    if program is None:
        reason = "no registry is installed: apt-get install docker-registry"
        if os.environ.get(REQUIRE_ENGINE):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path / "registry"
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
        yield LocalRegistry(_read_port(process, folder / "log"), folder / "storage")
    finally:
        process.terminate()
        process.wait(TIMEOUT_SECONDS)


def _read_port(process: "subprocess.Popen[bytes]", log: Path) -> int:
    """Return the port, from the registry's log."""
    for _ in range(TIMEOUT_SECONDS * 20):
        if match := re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text()):
            return int(match[1])
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError(f"the registry does not start: {log.read_text()}")


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with two jobs, from which `microjobs push` reads the revisions."""
    root = tmp_path / "clone"
    for job in ("serve", "train"):
        folder = root / "containers" / job
        folder.mkdir(parents=True)
        (folder / "image.yml").write_text("services: {}\n")
    git(root, "init", "--quiet")
    commit(root)
    monkeypatch.setattr(images, "REPOSITORY", root)
    return root


def git(root: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *settings, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(root: Path) -> str:
    """Commit all files and return the hash."""
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "work")
    return git(root, "rev-parse", "HEAD")


Build = Callable[..., str]
Microjobs = Callable[..., int]


@pytest.fixture
def build(clone: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    """A function that loads an image of a job into the engine and returns its ID. The default revision is HEAD."""
    prefix = f"microjobs-test-{secrets.token_hex(4)}"
    monkeypatch.setenv("REGISTRY", prefix)
    monkeypatch.delenv("TAG", raising=False)

    image_ids: list[str] = []

    def build(job: str, *layers: bytes, revision: str | None = None, architecture: str = "amd64") -> str:
        label = git(clone, "rev-parse", "HEAD") if revision is None else revision
        name = f"{prefix}/{job}:dev"
        image_ids.append(tiny_image.load(name, layers or (secrets.token_bytes(64),), label, architecture))
        return image_ids[-1]

    try:
        yield build
    finally:
        remove_images(image_ids)


def remove_images(image_ids: Collection[str]) -> None:
    """Remove images with all their names, also the names that contain a registry."""
    client = docker.from_env()
    try:
        for image in (image for image in client.api.images() if image["Id"] in image_ids):
            for name in [*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())]:
                with contextlib.suppress(ImageNotFound):  # the engine removes a digest with its repository's last tag
                    client.images.remove(name, force=True)
    finally:
        client.close()


@pytest.fixture
def microjobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Microjobs:
    """A function that runs `microjobs` with arguments, and with a login in environment variables."""
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv(credentials.USER, "anna")
    monkeypatch.setenv(credentials.PASSWORD, PASSWORD)
    return lambda *arguments: main(arguments)
