"""Folders that are filled or stay as they were."""

from pathlib import Path

import pytest

from microjobs.files import atomic_fill


def test_what_was_put_into_a_folder_goes_when_its_block_fails(tmp_path: Path) -> None:
    def fill() -> None:
        with atomic_fill(tmp_path):
            (tmp_path / "file").touch()
            (tmp_path / "folder" / "deep").mkdir(parents=True)
            raise RuntimeError

    (tmp_path / "older").touch()
    with pytest.raises(RuntimeError):
        fill()
    assert [path.name for path in tmp_path.iterdir()] == ["older"]


def test_filled_folder_stays(tmp_path: Path) -> None:
    with atomic_fill(tmp_path / "new"):
        (tmp_path / "new" / "file").touch()
    assert (tmp_path / "new" / "file").exists()
