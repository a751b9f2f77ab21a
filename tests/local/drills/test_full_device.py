"""Test of a server whose device is full: it reports the full device, loses nothing, and works again afterwards."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from microjobs.contract import Layout
from tests.local.clients import run_server
from tests.polling import wait_until

LAYOUT = Layout()
SIZE_MEGABYTES = 40


@pytest.fixture
def small_file_system(tmp_path: Path) -> Iterator[Path]:
    """A file system of `SIZE_MEGABYTES` megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MEGABYTES}m", "tmpfs", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.skip(f"this user may not mount a file system: {result.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@contextmanager
def fill_file_system(folder: Path) -> Iterator[None]:
    """Fill a folder's file system to the last byte; free the space at the end of the block."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    yield
    filler.unlink()


@pytest.mark.engine
def test_full_device_is_reported_and_nothing_is_lost(small_file_system: Path) -> None:
    with run_server(small_file_system / "home", runtime="docker") as server:
        finished_job = server.train(f"echo finished > {LAYOUT.model}/weights")["TrainingJobName"]
        name = server.start_training(f"echo ready; sleep 3; head -c 3000000 /dev/urandom > {LAYOUT.model}/big")
        wait_until(lambda: server.read_logs("TrainingJobs", name), lambda lines: lines.get("algo-1") == ["ready"])
        names = {path.name for path in server.bucket.rglob("*")}
        with fill_file_system(small_file_system):
            with pytest.raises(ClientError, match="no space left on the device"):
                server.s3.put_object(Bucket=server.address.bucket, Key="big", Body=b"x" * 100_000)
            with pytest.raises(ClientError, match="no space left on the device"):
                server.s3.create_multipart_upload(Bucket=server.address.bucket, Key="parts")
            job = server.wait_for_end(name)
        assert "does not fit: 0 bytes can be used" in job["FailureReason"]
        assert {path.name for path in server.bucket.rglob("*")} == names
        assert server.wait_for_end(finished_job)["TrainingJobStatus"] == "Completed"
        assert list((server.home.objects / "incoming").iterdir()) == []
        server.s3.put_object(Bucket=server.address.bucket, Key="big", Body=b"x" * 100_000)
        assert server.train(f"head -c 3000000 /dev/urandom > {LAYOUT.model}/big")["TrainingJobStatus"] == "Completed"
