"""The file that contains the digests of pushed images."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.push import pushed_images
from microjobs_orchestrator.push.destination import Destination
from microjobs_orchestrator.push.pushed_images import PushedImage

DESTINATION = Destination("registry.example.com", "team")
PUSHED_IMAGE = PushedImage(
    uri="registry.example.com/team/serve@sha256:1",
    tag="t",
    revision="r",
    image="sha256:2",
    time="2026-01-01T00:00:00+00:00",
)


def test_load_returns_the_last_push_of_each_job_and_registry(tmp_path: Path) -> None:
    home = Home(tmp_path)
    other_destination = Destination("other.example.com")
    later_push = replace(PUSHED_IMAGE, tag="later")
    for destination, job, pushed in [
        (DESTINATION, "serve", PUSHED_IMAGE),
        (DESTINATION, "train", PUSHED_IMAGE),
        (other_destination, "serve", PUSHED_IMAGE),
    ]:
        pushed_images.save(home, destination, job, pushed)
    pushed_images.save(home, DESTINATION, "serve", later_push)
    assert pushed_images.load(home) == {
        str(DESTINATION): {"serve": later_push, "train": PUSHED_IMAGE},
        str(other_destination): {"serve": PUSHED_IMAGE},
    }


def test_concurrent_pushes_are_all_saved(tmp_path: Path) -> None:
    home, jobs = Home(tmp_path), [f"job-{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda job: pushed_images.save(home, DESTINATION, job, PUSHED_IMAGE), jobs))
    assert set(pushed_images.load(home)[str(DESTINATION)]) == set(jobs)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": {"b": {"c": 1}}}', '{"a": 1}'])
def test_damaged_file_raises(tmp_path: Path, content: str) -> None:
    (tmp_path / "images.json").write_text(content)
    with pytest.raises(CommandError, match=r"images\.json is damaged .*remove it"):
        pushed_images.load(Home(tmp_path))
