"""A disk that gets full while a trainer writes: the reason, the platform's exit code, and nothing half-written.

What the small jobs write is tried without containers, in tests/unit/test_disk_full.py.
"""

from pathlib import Path

import pytest
from docker.types import Mount

from microjobs.contract import DEFAULT_ROOT, Layout
from tests.images.conftest import RunJob
from tests.images.training import write_request, write_small

pytestmark = pytest.mark.engine

TRAIN_AND_LOOK = "python -m microjobs train; code=$?; find {folder} -type f -printf 'left: %P\\n'; exit $code"


@pytest.mark.parametrize("job", ["train-tensorflow", "train-pytorch"])
@pytest.mark.parametrize(("name", "size"), [("model", "16k"), ("model", "64k"), ("checkpoints", "16k")])
def test_trainer_tells_a_full_disk_and_leaves_nothing_half_written(
    name: str, size: str, job: str, root: Path, run_job: RunJob
) -> None:
    layout = Layout(root)
    write_request(layout, epochs=3)
    write_small(layout)
    folder = f"{DEFAULT_ROOT}/{name}"
    command = ["sh", "-c", TRAIN_AND_LOOK.format(folder=folder)]
    disk = Mount(folder, "", "tmpfs", tmpfs_size=size)
    run = run_job(job, [], layout.root, expect=3, entrypoint=command, mounts=[disk])
    assert run.failure is not None
    assert run.failure.startswith(f"no space left on the device while writing {folder}")
    assert run.failure.count("\n") == 0
    assert "Traceback" not in run.log
    assert [line for line in run.log.splitlines() if line.startswith("left: ")] == []
