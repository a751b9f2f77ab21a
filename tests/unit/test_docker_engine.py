"""Tests of the client for the Docker engine."""

import gc
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import DockerException

from microjobs_orchestrator import docker_engine


@pytest.mark.parametrize("is_file", [False, True], ids=["missing", "file"])
def test_missing_engine_is_an_error_that_leaves_no_open_socket(is_file: bool, tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    if is_file:
        path.touch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(DockerException, match=rf"^{path}: "):
            docker_engine.connect(environ={"DOCKER_HOST": f"unix://{path}"})
        # Docker's SDK also accepts an address with fewer slashes, such as `unix:/run/docker.sock`.
        with pytest.raises(DockerException, match=rf"^{path}: "):
            docker_engine.connect(environ={"DOCKER_HOST": f"unix:/{path}"})
        gc.collect()
    assert [str(warning.message) for warning in caught if warning.category is ResourceWarning] == []


def test_docker_host_is_used_although_the_context_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise Exception("Detected corrupted meta file")

    monkeypatch.setattr("docker.context.ContextAPI.kwargs_from_context", fail)
    assert docker_engine.find_address({"DOCKER_HOST": "tcp://engine:2375"}) == "tcp://engine:2375"


@pytest.mark.parametrize(
    ("engine", "names"),
    [
        ("Podman Engine", ["microjobs/serve:dev", "mine:1", "python:3.11", "quay.io/a/b:1"]),
        (
            "Engine",
            ["localhost/microjobs/serve:dev", "localhost/mine:1", "docker.io/library/python:3.11", "quay.io/a/b:1"],
        ),
    ],
)
def test_images_of_podman_have_the_names_that_docker_gives_them(engine: str, names: list[str]) -> None:
    tags = ["localhost/microjobs/serve:dev", "localhost/mine:1", "docker.io/library/python:3.11", "quay.io/a/b:1"]
    client: Any = SimpleNamespace(
        version=lambda: {"Components": [{"Name": engine}]},
        api=SimpleNamespace(images=lambda **_: [{"Id": "a", "RepoTags": tags}, {"Id": "b", "RepoTags": None}]),
    )
    assert [image["RepoTags"] for image in docker_engine.list_images(client)] == [names, []]
