"""Tests for the `s3` commands of the AWS CLI."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from microjobs_orchestrator.local.home import Home
from tests.clients.environments import install_client_programs
from tests.local.s3.conftest import BUCKET

Aws = Callable[..., str]


@pytest.fixture
def aws(endpoint_url: str, tmp_path: Path) -> Aws:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": "anybody",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_DEFAULT_REGION": "us-east-1",
    }

    def aws(*arguments: str | Path) -> str:
        command = [str(install_client_programs("aws") / "aws"), "s3", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    return aws


@pytest.mark.slow
def test_files_are_copied_moved_and_removed(aws: Aws, home: Home, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("content")
    bucket = home.buckets / BUCKET
    aws("cp", tmp_path / "a.txt", f"s3://{BUCKET}/x/")
    aws("mv", f"s3://{BUCKET}/x/a.txt", f"s3://{BUCKET}/y/b.txt")
    assert [path.relative_to(bucket).as_posix() for path in bucket.rglob("*.txt")] == ["y/b.txt"]
    aws("cp", f"s3://{BUCKET}/y/b.txt", tmp_path / "back.txt")
    assert (tmp_path / "back.txt").read_text() == "content"
    aws("rm", "--recursive", f"s3://{BUCKET}")
    assert not list(bucket.iterdir())


@pytest.mark.slow
def test_sync_copies_in_both_directions(aws: Aws, home: Home, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("a b/1.txt", "a b/é.csv", "2.txt"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    (source / "large").write_bytes(bytes(9 << 20))  # the client uploads this file in parts
    aws("sync", source, f"s3://{BUCKET}/data")
    assert aws("sync", source, f"s3://{BUCKET}/data") == ""
    (home.buckets / BUCKET / "data" / "added").write_text("by hand")
    aws("sync", f"s3://{BUCKET}/data", tmp_path / "back")
    assert (tmp_path / "back" / "a b" / "é.csv").read_text() == "a b/é.csv"
    assert (tmp_path / "back" / "large").stat().st_size == 9 << 20
    aws("sync", "--delete", source, f"s3://{BUCKET}/data")
    assert not (home.buckets / BUCKET / "data" / "added").exists()


@pytest.mark.slow
def test_buckets_are_created_listed_and_removed(aws: Aws, home: Home) -> None:
    aws("mb", "s3://another")
    (home.buckets / "another" / "x").mkdir()
    (home.buckets / "another" / "x" / "added.txt").write_text("by hand")
    assert [line.split()[-1] for line in aws("ls").splitlines()] == [BUCKET, "another"]
    assert aws("ls", "s3://another").split() == ["PRE", "x/"]
    assert aws("ls", "s3://another/x/").split()[-2:] == ["7", "added.txt"]
    aws("rb", "--force", "s3://another")
    assert not (home.buckets / "another").exists()
