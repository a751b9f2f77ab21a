"""What was pushed is known afterwards."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from microjobs_orchestrator.failures import LauncherError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.push import record
from microjobs_orchestrator.push.plan import Destination
from microjobs_orchestrator.push.record import Pushed

HERE = Destination("registry.example.com", "team")
PUSHED = Pushed("registry.example.com/team/serve@sha256:1", "t", "r", "sha256:2", "2026-01-01T00:00:00+00:00")


def test_last_push_of_each_job_and_registry_is_known(tmp_path: Path) -> None:
    home = Home(tmp_path)
    there = Destination("other.example.com")
    later = replace(PUSHED, tag="later")
    for destination, job, pushed in [(HERE, "serve", PUSHED), (HERE, "train", PUSHED), (there, "serve", PUSHED)]:
        record.note(home, destination, job, pushed)
    record.note(home, HERE, "serve", later)
    assert record.read(home) == {str(HERE): {"serve": later, "train": PUSHED}, str(there): {"serve": PUSHED}}


def test_pushes_at_once_are_all_known(tmp_path: Path) -> None:
    home, jobs = Home(tmp_path), [f"job-{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda job: record.note(home, HERE, job, PUSHED), jobs))
    assert set(record.read(home)[str(HERE)]) == set(jobs)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": {"b": {"c": 1}}}', '{"a": 1}'])
def test_damaged_file_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "images.json").write_text(content)
    with pytest.raises(LauncherError, match=r"images\.json is damaged .*remove it"):
        record.read(Home(tmp_path))
