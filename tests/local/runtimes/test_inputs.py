"""Tests of the access rights of overlaid inputs."""

import os
import stat
from pathlib import Path

import pytest

from microjobs.contract import Layout
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.runtimes.base import HostPlan, Input, Plan
from microjobs_orchestrator.local.runtimes.docker.overlays import make_readable
from microjobs_orchestrator.local.runtimes.docker.runtime import DockerRuntime
from tests.conftest import build_image_from_job

MODES = {"private": 0o600, "group": 0o640, "public": 0o644, "program": 0o700}


@pytest.fixture
def linked_folder(tmp_path: Path) -> Path:
    """A folder of hard links to a user's files, as a server with umask 077 creates it."""
    bucket, linked_folder = tmp_path / "bucket", tmp_path / "linked"
    for folder in (bucket, linked_folder, linked_folder / "deep"):
        folder.mkdir(mode=0o700)
    for name, mode in MODES.items():
        (bucket / name).write_text(name)
        (bucket / name).chmod(mode)
        os.link(bucket / name, linked_folder / "deep" / name)
    return linked_folder


def read_modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_private_files_are_replaced_by_readable_copies(linked_folder: Path) -> None:
    bucket = linked_folder.parent / "bucket"
    make_readable(linked_folder)
    assert read_modes(linked_folder / "deep") == {"private": 0o644, "group": 0o644, "public": 0o644, "program": 0o755}
    assert read_modes(linked_folder) == {"deep": 0o755}
    assert read_modes(bucket) == MODES
    assert {path.name: path.read_text() for path in (linked_folder / "deep").iterdir()} == {
        name: name for name in MODES
    }
    unchanged_files = {name for name in MODES if (linked_folder / "deep" / name).samefile(bucket / name)}
    assert unchanged_files == {"public"}, "only files that must become readable are copied"


@pytest.mark.engine
def test_container_whose_user_is_not_root_reads_private_files(linked_folder: Path, tmp_path: Path) -> None:
    layout, files = Layout(), tmp_path / "files"
    files.mkdir()
    script = f"cat {layout.channel('train')}/deep/*"
    with build_image_from_job("serve", "USER 1000") as image:
        runtime = DockerRuntime(Home(tmp_path / "home"))
        inputs = (Input(str(layout.channel("train")), linked_folder),)
        host = HostPlan("algo-1", image, files, inputs, entrypoint=("/bin/sh", "-c"), arguments=(script,))
        try:
            (running_host,) = runtime.start(Plan("job/a", (host,)))
            assert b"".join(line.text for line in running_host.lines()).decode() == "".join(sorted(MODES))
        finally:
            runtime.remove("job/a")
            runtime.close()
