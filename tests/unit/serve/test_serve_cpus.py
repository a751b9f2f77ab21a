"""The number of workers: one per usable CPU, or the number in the environment."""

import math
import os
from pathlib import Path

import pytest

from microjobs.hosting import workers


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu.max": "0 100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({}, math.inf),
    ],
    ids=["v2", "v2-unlimited", "v2-zero", "v1", "v1-unlimited", "no-cgroup"],
)
def test_cpu_quota_is_read_from_the_cgroup(tmp_path: Path, files: dict[str, str], expected: float) -> None:
    (tmp_path / "cpu").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert workers.read_cpu_quota(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [(math.inf, 4), (8.0, 4), (2.9, 2), (0.5, 1)])
def test_one_worker_per_usable_cpu(monkeypatch: pytest.MonkeyPatch, quota: float, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    monkeypatch.setattr(workers, "read_cpu_quota", lambda: quota)
    assert workers.read_worker_count({}) == expected


def test_environment_sets_the_number_of_workers() -> None:
    assert workers.read_worker_count({"SAGEMAKER_MODEL_SERVER_WORKERS": "7"}) == 7
