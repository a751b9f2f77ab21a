"""Checkpoints: damaged checkpoints are set aside, the newest complete checkpoint is used, and checkpoints of another
training are never used."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from microjobs.contract import Layout, write_checkpoint_config
from microjobs.errors import UserError
from microjobs.trainer import checkpoints
from microjobs.trainer.checkpoints import MANIFEST, TRAINING_PER_SAVE_TIME, Checkpoints, open_job_checkpoints
from tests.conftest import REPOSITORY

FINGERPRINT = {"learning_rate": 0.01, "seed": 42}


def write_weights(content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "weights").write_text(content)

    return write


def save_checkpoints(folder: Path, count: int, max_count: int = 3) -> Checkpoints:
    store = Checkpoints(folder, FINGERPRINT, max_count=max_count)
    for epoch in range(1, count + 1):
        store.save(epoch, write_weights(f"epoch {epoch}"), {"loss": 1 / epoch})
    return store


def test_empty_folder_has_nothing_to_restore(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none", FINGERPRINT, max_count=3).restore() is None


def test_newest_checkpoint_is_restored_with_its_state(tmp_path: Path) -> None:
    save_checkpoints(tmp_path, 3)
    checkpoint = Checkpoints(tmp_path, FINGERPRINT, max_count=3).restore()
    assert checkpoint is not None
    assert (checkpoint.epoch, checkpoint.state) == (3, {"loss": 1 / 3})
    assert (checkpoint.folder / "weights").read_text() == "epoch 3"


def test_oldest_checkpoints_are_removed(tmp_path: Path) -> None:
    save_checkpoints(tmp_path, 5, max_count=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-000004", "checkpoint-000005"]


def test_same_epoch_can_be_saved_twice(tmp_path: Path) -> None:
    store = save_checkpoints(tmp_path, 1)
    store.save(1, write_weights("after half of the next"), {})
    checkpoint = store.restore()
    assert checkpoint is not None
    assert (checkpoint.epoch, (checkpoint.folder / "weights").read_text()) == (1, "after half of the next")


def truncate_weights(folder: Path) -> None:
    (folder / "weights").write_text("epoch")


def change_weights(folder: Path) -> None:
    (folder / "weights").write_text("epoch 9")


def delete_weights(folder: Path) -> None:
    (folder / "weights").unlink()


def truncate_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:-20])


def delete_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def empty_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text('{"files": {}}')


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate_weights, "weights has 5 bytes, not 7"),
        (change_weights, "weights does not have the digest in the manifest"),
        (delete_weights, "weights is missing"),
        (truncate_manifest, "checkpoint.json is incomplete"),
        (delete_manifest, "checkpoint.json: No such file"),
        (empty_manifest, "checkpoint.json is incomplete"),
    ],
)
def test_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(
    damage: Callable[[Path], None], reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_checkpoints(tmp_path, 2)
    damage(tmp_path / "checkpoint-000002")
    checkpoint = Checkpoints(tmp_path, FINGERPRINT, max_count=3).restore()
    assert checkpoint is not None
    assert checkpoint.epoch == 1
    assert (tmp_path / "checkpoint-000002.torn").is_dir()
    assert reason in caplog.text


def test_folders_that_cannot_be_renamed_can_be_removed_and_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A platform can copy checkpoints back into the lower layer of an overlay. Such folders cannot be renamed."""
    save_checkpoints(tmp_path, 3)
    rename, lower_names = os.rename, {path.name for path in tmp_path.iterdir()}

    def refuse(source: Path, target: Path) -> None:
        if Path(source).name in lower_names:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    save_checkpoints(tmp_path, 1)
    (tmp_path / "checkpoint-000003" / "weights").unlink()
    (tmp_path / "checkpoint-000004" / "weights").unlink()
    checkpoint = Checkpoints(tmp_path, FINGERPRINT, max_count=3).restore()
    assert checkpoint is not None
    assert checkpoint.epoch == 2
    names = ["checkpoint-000002", "checkpoint-000003.torn", "checkpoint-000004.torn"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_damaged_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    save_checkpoints(tmp_path, 2)
    delete_weights(tmp_path / "checkpoint-000002")
    store = Checkpoints(tmp_path, FINGERPRINT, max_count=3)
    store.restore()
    store.save(2, write_weights("again"), {})
    assert (tmp_path / "checkpoint-000003" / "weights").read_text() == "again"


def test_nothing_is_restored_if_all_checkpoints_are_damaged(tmp_path: Path) -> None:
    save_checkpoints(tmp_path, 2)
    for folder in list(tmp_path.iterdir()):
        delete_weights(folder)
    assert Checkpoints(tmp_path, FINGERPRINT, max_count=3).restore() is None


def test_checkpoint_of_another_training_raises_with_each_difference(tmp_path: Path) -> None:
    save_checkpoints(tmp_path, 1)
    store = Checkpoints(tmp_path, {"learning_rate": 0.02, "seed": 42, "hosts": 2}, max_count=3)
    expected = r"learning_rate was 0\.01, is 0\.02; hosts was unknown, is 2\. .*empty the folder"
    with pytest.raises(UserError, match=expected):
        store.restore()


def test_failed_save_leaves_nothing(tmp_path: Path) -> None:
    store = save_checkpoints(tmp_path, 1)

    def fail_with_full_disk(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        store.save(2, fail_with_full_disk, {})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000001"]


def test_loss_that_is_not_a_number_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        save_checkpoints(tmp_path, 1).save(2, write_weights(""), {"loss": float("nan")})


def test_other_files_in_the_folder_are_kept(tmp_path: Path) -> None:
    for name in ("notes.txt", "checkpoint-best", ".checkpoint-mine"):
        (tmp_path / name).write_text("the user's")
    save_checkpoints(tmp_path, 4, max_count=1).restore()
    assert {path.name for path in tmp_path.iterdir()} == {
        "notes.txt",
        "checkpoint-best",
        ".checkpoint-mine",
        "checkpoint-000004",
    }


def test_saves_take_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def advance_clock(seconds: float) -> None:
        now[0] += seconds

    store = Checkpoints(tmp_path, FINGERPRINT, max_count=3)
    are_due = [store.is_due]
    store.save(1, lambda _: advance_clock(2), {})
    for seconds in (0, 2 * TRAINING_PER_SAVE_TIME - 1, 1):
        advance_clock(seconds)
        are_due.append(store.is_due)
    assert are_due == [True, False, False, True]


SAVING_PROGRAM = """
import sys, itertools
from pathlib import Path
from microjobs.trainer.checkpoints import Checkpoints
store = Checkpoints(Path(sys.argv[1]), {}, max_count=2)
checkpoint = store.restore()
last_epoch = 0 if checkpoint is None else checkpoint.epoch
if checkpoint is not None:
    assert (checkpoint.folder / "weights").read_bytes() == bytes([last_epoch % 256]) * 300_000
print("ready", flush=True)
for epoch in itertools.count(last_epoch + 1):
    store.save(epoch, lambda folder: (folder / "weights").write_bytes(bytes([epoch % 256]) * 300_000), {})
    print("saved", flush=True)
"""


def test_killed_process_leaves_a_good_checkpoint(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "shared")}
    for attempt in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVING_PROGRAM, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", "did not resume from the last checkpoint"
            start_time = time.monotonic()
            assert process.stdout.readline() == "saved\n"
            time.sleep(
                (time.monotonic() - start_time) * attempt / 11
            )  # the process is killed during the next save, on a disk of any speed
            process.send_signal(signal.SIGKILL)
    checkpoint = Checkpoints(tmp_path, {}, max_count=2).restore()
    assert checkpoint is not None
    assert checkpoint.epoch >= 12
    assert not list(tmp_path.glob("*.torn"))
    # there are 3 if the process was killed before it removed the oldest checkpoint
    assert len(list(tmp_path.glob("checkpoint-*"))) in (2, 3)


def test_folder_of_the_request_is_used_and_kept(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_checkpoint_config(layout, layout.to_contract_path(layout.checkpoints / "mine"))
    store = open_job_checkpoints(layout, FINGERPRINT, max_count=3)
    store.save(1, write_weights(""), {})
    store.close()
    assert (layout.checkpoints / "mine" / "checkpoint-000001").is_dir()


def test_temporary_folder_is_removed_when_the_job_is_done(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    open_job_checkpoints(layout, FINGERPRINT, max_count=3).save(1, write_weights(""), {})
    store = open_job_checkpoints(layout, FINGERPRINT, max_count=3)
    assert store.restore() is not None
    store.close()
    assert not layout.checkpoints.exists()


def test_nothing_is_saved_if_the_folder_cannot_be_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, for whom each folder is writable
    store = open_job_checkpoints(Layout(tmp_path), FINGERPRINT, max_count=3)
    store.save(1, write_weights(""), {})
    assert (store.is_enabled, store.is_due, list(tmp_path.iterdir())) == (False, False, [])
