"""If the disk is full, a trainer ends with exit code 3 and a failure reason, and leaves no partly written file.

tests/unit/test_disk_full.py tests the other jobs, without containers.
"""

from pathlib import Path

import pytest
from docker.types import Mount

from microjobs.contract import DEFAULT_ROOT, Layout
from tests.images.conftest import RunJob
from tests.images.training import write_small_data, write_training_config

pytestmark = pytest.mark.engine

TRAIN_AND_LIST_FILES = "python -m microjobs train; code=$?; find {folder} -type f -printf 'left: %P\\n'; exit $code"


@pytest.mark.parametrize("job", ["train-tensorflow", "train-pytorch"])
@pytest.mark.parametrize(("name", "size"), [("model", "16k"), ("model", "64k"), ("checkpoints", "16k")])
def test_full_disk_is_reported_and_leaves_no_partial_file(
    name: str, size: str, job: str, root: Path, run_job: RunJob
) -> None:
    layout = Layout(root)
    write_training_config(layout, epochs=3)
    write_small_data(layout)
    folder = f"{DEFAULT_ROOT}/{name}"
    command = ["sh", "-c", TRAIN_AND_LIST_FILES.format(folder=folder)]
    disk = Mount(folder, "", "tmpfs", tmpfs_size=size)
    run = run_job(job, [], layout.root, exit_code=3, entrypoint=command, mounts=[disk])
    assert run.failure is not None
    assert run.failure.startswith(f"no space left on the device while writing {folder}")
    assert run.failure.count("\n") == 0
    assert "Traceback" not in run.log
    assert [line for line in run.log.splitlines() if line.startswith("left: ")] == []
