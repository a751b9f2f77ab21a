"""Folders that are filled completely or not at all."""

from pathlib import Path

import pytest

from microjobs.files import atomic_fill


def test_failed_block_removes_the_files_that_it_added(tmp_path: Path) -> None:
    def fill() -> None:
        with atomic_fill(tmp_path):
            (tmp_path / "file").touch()
            (tmp_path / "folder" / "deep").mkdir(parents=True)
            raise RuntimeError

    (tmp_path / "older").touch()
    with pytest.raises(RuntimeError):
        fill()
    assert [path.name for path in tmp_path.iterdir()] == ["older"]


def test_successful_block_keeps_its_files(tmp_path: Path) -> None:
    with atomic_fill(tmp_path / "new"):
        (tmp_path / "new" / "file").touch()
    assert (tmp_path / "new" / "file").exists()
