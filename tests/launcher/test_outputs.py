"""Tests of the download of outputs from S3."""

from pathlib import Path

import pytest

from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.runs import outputs
from tests.launcher.cloud import Cloud


def test_downloaded_objects_keep_their_folders(cloud: Cloud, tmp_path: Path) -> None:
    """Objects with equal base names do not overwrite each other."""
    keys = ("report.json", "algo-1/report.json", "algo-2/deep/report.json")
    cloud.objects |= {f"s3://bucket/run/output/{key}": key.encode() for key in keys}
    cloud.objects |= {"s3://bucket/run/output/": b"", "s3://bucket/run/output/empty/": b""}  # folder markers
    folder = outputs.download(cloud.make_backend(), "s3://bucket/run/output", tmp_path / "files")
    files = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert files == {key: key for key in keys}


@pytest.mark.parametrize("keys", [("../evil",), ("a//b",), ("a", "a/b"), ("./a",)])
def test_object_that_cannot_be_a_file_below_the_folder_is_reported(
    cloud: Cloud, keys: tuple[str, ...], tmp_path: Path
) -> None:
    cloud.objects |= {f"s3://bucket/run/output/{key}": b"x" for key in keys}
    with pytest.raises(CommandError, match=f"s3://bucket/run/output/{keys[-1]} cannot be a file below "):
        outputs.download(cloud.make_backend(), "s3://bucket/run/output", tmp_path / "files")
    assert not (tmp_path / "evil").exists()
