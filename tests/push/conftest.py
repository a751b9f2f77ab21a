"""A registry, a git repository with a commit, and tiny images that state this commit as their revision."""

import contextlib
import secrets
import subprocess
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound

from microjobs_orchestrator import images
from microjobs_orchestrator.cli import main
from microjobs_orchestrator.local.home import HOME_VARIABLE
from microjobs_orchestrator.push.login import PASSWORD_VARIABLE, USER_VARIABLE
from microjobs_orchestrator.push.tags import Image
from tests.push import tiny_image
from tests.registry import PASSWORD, LocalRegistry, run_registry

REVISION = "0123456789abcdef0123456789abcdef01234567"
"""The revision of an image: the hash of the commit from which it was built."""


def make_image(job: str = "serve", revision: str = REVISION, platform: str = "linux/amd64") -> Image:
    return Image(job, name=f"microjobs/{job}:dev", id="sha256:" + "5" * 64, revision=revision, platform=platform)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LocalRegistry]:
    with run_registry(tmp_path / "registry") as registry:
        yield registry


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with two jobs, from which `microjobs push` reads the revisions."""
    repository = tmp_path / "clone"
    for job in ("serve", "train"):
        folder = repository / "containers" / job
        folder.mkdir(parents=True)
        (folder / "image.yml").write_text("services: {}\n")
    git(repository, "init", "--quiet")
    commit(repository)
    monkeypatch.setattr(images, "REPOSITORY", repository)
    return repository


def git(repository: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *settings, *arguments], cwd=repository, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(repository: Path) -> str:
    """Commit all files and return the hash."""
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "work")
    return git(repository, "rev-parse", "HEAD")


LoadImage = Callable[..., str]
Microjobs = Callable[..., int]


@pytest.fixture
def load_image(clone: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoadImage]:
    """A function that loads a tiny image of a job into the engine, and returns its ID. The image's label states a
    revision, by default the clone's HEAD."""
    prefix = f"microjobs-test-{secrets.token_hex(4)}"
    monkeypatch.setenv("REGISTRY", prefix)
    monkeypatch.delenv("TAG", raising=False)

    image_ids: list[str] = []

    def load(job: str, *layers: bytes, revision: str | None = None, architecture: str = "amd64") -> str:
        label = git(clone, "rev-parse", "HEAD") if revision is None else revision
        name = f"{prefix}/{job}:dev"
        image_ids.append(tiny_image.load(name, layers or (secrets.token_bytes(64),), label, architecture))
        return image_ids[-1]

    try:
        yield load
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
    """A function that runs `microjobs` with a login in environment variables, and returns the exit code."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv(USER_VARIABLE, "anna")
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    return lambda *arguments: main(arguments)
