"""Tests of `Sync`, which uploads a host's folder to a bucket while the host runs."""

import shutil
from pathlib import Path

import pytest

from microjobs_orchestrator.local.lifecycle.sync import Sync
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.trees import Tree
from tests.local.trees import read_tree


class HostWithFolder:
    """A host whose only folder is `files` of this machine."""

    name = "algo-1"

    def __init__(self, files: Path) -> None:
        self.files = files

    def copy(self, path: str, target: Path) -> Tree:  # noqa: ARG002  the host has one folder
        shutil.copytree(self.files, target)
        return read_tree(target)


@pytest.fixture
def sync(store: ObjectStore, tmp_path: Path) -> Sync:
    host = HostWithFolder(tmp_path / "files")
    host.files.mkdir()
    return Sync(store, [host], "/out", "s3://data/c", tmp_path / "work", note=print, deletes_removed_files=True)  # type: ignore[list-item]


def list_keys(store: ObjectStore) -> list[str]:
    return [item.key for item in store.list("data")]


def test_checkpoint_stays_until_the_next_one_is_uploaded(store: ObjectStore, sync: Sync, tmp_path: Path) -> None:
    """The host and the server may be lost at any moment, so the bucket must always contain a complete checkpoint."""
    files = tmp_path / "files"
    (files / "first").write_text("1")
    sync.poll(is_final=False)
    sync.poll(is_final=False)
    assert list_keys(store) == ["c/first"]
    (files / "second").write_text("2")
    (files / "first").unlink()
    sync.poll(is_final=False)
    assert list_keys(store) == ["c/first"]
    sync.poll(is_final=False)
    assert list_keys(store) == ["c/second"]


def test_last_poll_deletes_objects_of_deleted_files(store: ObjectStore, sync: Sync, tmp_path: Path) -> None:
    files = tmp_path / "files"
    (files / "first").write_text("1")
    sync.poll(is_final=True)
    (files / "first").rename(files / "second")
    sync.poll(is_final=True)
    assert list_keys(store) == ["c/second"]
