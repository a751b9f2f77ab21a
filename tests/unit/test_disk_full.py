"""Jobs whose disk becomes full: they report the reason with exit code 3, and leave no partial files.

The small disk is a tmpfs in a mount namespace, which needs no privileges if the system allows user namespaces.
"""

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from microjobs.contract import Layout, read_failure
from tests.bundles import write_linear_bundle
from tests.conftest import CONTAINERS, REPOSITORY

UNSHARE_COMMAND = ["unshare", "--map-root-user", "--mount"]
SMALL_DISK_SCRIPT = """
mount -t tmpfs -o size="$1" small "$2" || exit 99
folder=$2; shift 2
"$@"; code=$?
find "$folder" -type f -printf 'left: %P\\n'
exit $code
"""

pytestmark = pytest.mark.skipif(
    subprocess.run(
        [*UNSHARE_COMMAND, "mount", "-t", "tmpfs", "small", "/mnt"], capture_output=True, check=False
    ).returncode
    != 0,
    reason="this system does not allow user namespaces, which the small disk needs",
)


@dataclass(frozen=True)
class FinishedJob:
    """The end of a job: exit code, log, and the files that it left."""

    exit_code: int
    log: str
    remaining_files: list[str]
    """Paths of the files on the small disk."""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "ml")


def run(job: str, layout: Layout, disk: Path, size: str = "1m") -> FinishedJob:
    """Run a job while the folder `disk` is a small disk."""
    disk.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "MICROJOBS_JOB": str(CONTAINERS / job),
        "PYTHONPATH": str(REPOSITORY / "shared"),
        "SAGEMAKER_BASE_DIR": str(layout.root),
        "TMPDIR": str(layout.root / "tmp"),
    }
    (layout.root / "tmp").mkdir(exist_ok=True)
    script = ["sh", "-c", SMALL_DISK_SCRIPT, "sh", size, str(disk)]
    command = [*UNSHARE_COMMAND, *script, sys.executable, "-m", "microjobs"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    remaining_files = [line.removeprefix("left: ") for line in result.stdout.splitlines() if line.startswith("left: ")]
    return FinishedJob(result.returncode, result.stderr, remaining_files)


def save_arrays(folder: Path, rows: int, names: Iterable[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        np.save(folder / f"{name}.npy", np.random.default_rng(0).normal(size=(rows, 3)[: 2 if name[0] == "x" else 1]))


def make_full_disk_reason(file: Path) -> str:
    return f"no space left on the device while writing {file}: give the job a larger volume"


@pytest.mark.parametrize(("split", "name"), [("train", "x_train.npy"), ("test", "x_test.npy")])
def test_preprocess_leaves_neither_arrays_nor_scaler(split: str, name: str, layout: Layout) -> None:
    save_arrays(layout.processing("input"), 100_000, ["x_train", "y_train", "x_test", "y_test"])
    result = run("preprocess", layout, layout.processing(split))
    assert (result.exit_code, result.remaining_files) == (3, []), result.log
    assert read_failure(layout) == make_full_disk_reason(layout.processing(split) / name)
    assert "Traceback" not in result.log
    assert list(layout.root.glob("processing/t*/*")) == []


def test_preprocess_without_space_for_the_targets_leaves_nothing(layout: Layout) -> None:
    save_arrays(layout.processing("input"), 100_000, ["x_train", "y_train"])
    result = run("preprocess", layout, layout.processing("train"), size="2500k")  # x has 2.4 MB, and y has 0.8 MB
    assert (result.exit_code, result.remaining_files) == (3, []), result.log
    assert read_failure(layout) == make_full_disk_reason(layout.processing("train") / "y_train.npy")


@pytest.mark.parametrize(
    ("size", "name"),
    [("256k", "predictions.npy"), ("420k", "predicted-versus-target.png")],
    ids=["predictions", "plot"],
)
def test_batch_score_leaves_only_complete_files(size: str, name: str, layout: Layout) -> None:
    write_linear_bundle(layout.processing("model"), [1.0, 2.0, 3.0], 0.5)
    save_arrays(layout.processing("test"), 100_000, ["x_test", "y_test"])
    result = run("batch-score", layout, layout.processing("batch"), size)
    assert result.exit_code == 3, result.log
    assert read_failure(layout) == make_full_disk_reason(layout.processing("batch") / name)
    assert "Traceback" not in result.log
    assert result.remaining_files in ([], ["predictions.npy"])


FILL_DISK_PROGRAM = """
import contextlib
import sys
from pathlib import Path
from microjobs.errors import UserError, explain_error
from microjobs.files import atomic_fill, atomic_write

folder = Path(sys.argv[1])

def fail(error, block, path):
    try:
        with block:
            with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
                while file.write(bytes(1 << 16)):
                    pass
            raise error
    except Exception as raised:
        print(*explain_error(raised))

position_error = RuntimeError("unexpected pos 3904 vs 3856")  # PyTorch's error if the disk is full
fail(position_error, atomic_fill(folder), folder / "model.pth")
fail(position_error, atomic_write(folder / "plot.png"), folder / ".plot.png.partial")
fail(UserError("the loss is not finite"), atomic_fill(folder), folder / "model.pth")
"""
"""A program that fills the disk, and then raises an error that does not mention the disk."""


def test_full_disk_is_reported_for_any_error_of_a_library(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [
        *UNSHARE_COMMAND,
        "sh",
        "-c",
        SMALL_DISK_SCRIPT,
        "sh",
        "1m",
        str(disk),
        sys.executable,
        "-c",
        FILL_DISK_PROGRAM,
        str(disk),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [
        f"3 {make_full_disk_reason(disk)}",
        f"3 {make_full_disk_reason(disk / 'plot.png')}",
        "2 the loss is not finite",
    ]


def test_archive_whose_files_do_not_fit_on_the_disk_is_reported(layout: Layout) -> None:
    write_linear_bundle(layout.root / "bundle", [1.0, 2.0, 3.0], 0.5)
    (layout.root / "bundle" / "zeros").write_bytes(bytes(2 << 20))
    layout.processing("model").mkdir(parents=True)
    with tarfile.open(layout.processing("model") / "model.tar.gz", "w:gz") as tar:
        tar.add(layout.root / "bundle", ".")
    save_arrays(layout.processing("test"), 10, ["x_test"])
    result = run("batch-score", layout, layout.root / "tmp")
    assert (result.exit_code, result.remaining_files) == (3, []), result.log
    assert "no space left on the device while writing" in (read_failure(layout) or "")
