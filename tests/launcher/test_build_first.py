"""Tests of `microjobs run --build`, with a fake engine and a fake build."""

from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, DockerException, ImageNotFound
from rich.console import Console

from microjobs_orchestrator import build_first, docker_engine, images
from microjobs_orchestrator.failures import CommandError

BASE_IMAGE = "registry.example.com/python:3.11"
CONSOLE = Console(quiet=True)


class Engine:
    """A fake engine with some images, and with a registry or without one."""

    def __init__(self, *, image_names: tuple[str, ...] = (), has_registry: bool = True) -> None:
        self.image_names = image_names
        self.has_registry = has_registry
        self.pulls: list[tuple[str, str]] = []
        self.is_closed = False
        self.images = SimpleNamespace(get=self._get, pull=self._pull)

    def _get(self, name: str) -> None:
        if name not in self.image_names:
            raise ImageNotFound(name)

    def _pull(self, name: str, platform: str) -> None:
        if not self.has_registry:
            raise APIError("500 Server Error", explanation="no such host\nsecond line")
        self.pulls.append((name, platform))

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture(autouse=True)
def built_jobs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The jobs of each build."""
    jobs: list[list[str]] = []

    def build(names: list[str]) -> int:
        jobs.append(names)
        return 0

    monkeypatch.setattr(images, "build", build)
    monkeypatch.setenv("PYTHON_IMAGE", BASE_IMAGE)
    return jobs


def run_build(monkeypatch: pytest.MonkeyPatch, engine: Engine, runtime: str = "auto") -> str:
    monkeypatch.setattr(docker_engine, "connect", lambda: engine)
    try:
        return build_first.build_and_choose_runtime(runtime, ["serve"], CONSOLE)
    finally:
        assert engine.is_closed


@pytest.mark.parametrize("runtime", ["auto", "docker", "process"])
def test_without_an_engine_nothing_is_built(
    runtime: str, monkeypatch: pytest.MonkeyPatch, built_jobs: list[list[str]]
) -> None:
    def raise_no_engine() -> Any:
        raise DockerException("no engine")

    monkeypatch.setattr(docker_engine, "connect", raise_no_engine)
    assert build_first.build_and_choose_runtime(runtime, ["serve"], CONSOLE) == runtime
    assert built_jobs == []


@pytest.mark.parametrize("image_names", [(), (BASE_IMAGE,)])
def test_base_image_is_pulled_if_it_is_missing(
    image_names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, built_jobs: list[list[str]]
) -> None:
    engine = Engine(image_names=image_names)
    assert run_build(monkeypatch, engine) == "auto"
    assert engine.pulls == ([] if image_names else [(BASE_IMAGE, "linux/amd64")])
    assert built_jobs == [["serve"]]


def test_default_base_image_is_that_of_the_dockerfiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON_IMAGE", "")
    assert build_first.get_base_image_name() == "python:3.11-slim-bookworm"


def test_failed_build_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "build", lambda _jobs: 2)
    with pytest.raises(CommandError, match="images were not built"):
        run_build(monkeypatch, Engine())


def test_without_a_registry_jobs_run_as_processes(
    monkeypatch: pytest.MonkeyPatch, built_jobs: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(images, "find_missing", lambda _jobs: ["serve"])
    monkeypatch.setattr(docker_engine, "connect", lambda: Engine(has_registry=False))
    assert build_first.build_and_choose_runtime("auto", ["serve"], Console(width=300)) == "process"
    output = capsys.readouterr().out
    assert f"cannot pull {BASE_IMAGE} (no such host); the jobs run as processes" in output
    assert built_jobs == []


def test_without_a_registry_existing_images_are_used(
    monkeypatch: pytest.MonkeyPatch, built_jobs: list[list[str]]
) -> None:
    monkeypatch.setattr(images, "find_missing", lambda _jobs: [])
    assert run_build(monkeypatch, Engine(has_registry=False), "docker") == "docker"
    assert built_jobs == []


def test_without_a_registry_the_docker_runtime_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "find_missing", lambda _jobs: ["serve"])
    with pytest.raises(CommandError, match=r"cannot pull .* and --runtime process needs no images"):
        run_build(monkeypatch, Engine(has_registry=False), "docker")
