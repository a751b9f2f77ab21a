"""Tests of copies to and from the folders of processes."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from microjobs_orchestrator.local.runtimes.files import collect, copy_tree
from microjobs_orchestrator.local.trees import remove, sort_names
from tests.conftest import REPOSITORY
from tests.local.runtimes.processes import get_names


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder that contains a file, and a folder with a program."""
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    (source / "file").write_text("content")
    (source / "folder" / "program").write_text("#!/bin/sh")
    (source / "folder" / "program").chmod(0o555)
    return source


def test_copied_files_are_writable(source: Path, tmp_path: Path) -> None:
    copy_tree(source, tmp_path / "copy")
    program = tmp_path / "copy" / "folder" / "program"
    assert program.stat().st_mode & 0o777 == 0o755
    assert program.stat().st_ino != (source / "folder" / "program").stat().st_ino
    assert program.read_text() == "#!/bin/sh"


def test_copied_folders_are_merged(source: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "before").touch()
    copy_tree(source, tmp_path / "copy")
    assert get_names((tmp_path / "copy").iterdir()) == {"before", "file", "folder"}


def test_large_files_are_copied_without_kernel_support(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError

    monkeypatch.setattr(os, "copy_file_range", refuse)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(content := os.urandom(3_000_000))
    copy_tree(tmp_path / "source", tmp_path / "copy")
    assert (tmp_path / "copy" / "file").read_bytes() == content


@pytest.mark.parametrize("use_hard_links", [True, False])
def test_collected_tree_equals_its_source(use_hard_links: bool, source: Path, tmp_path: Path) -> None:
    (source / "link").symlink_to("folder/program")
    (source / "circle").symlink_to("circle")
    tree = collect(source, tmp_path / "to", use_hard_links=use_hard_links)
    assert tree is not None
    assert sort_names(tree) == ["circle", "file", "folder", "folder/program", "link"]
    assert (tree["link"].target, tree["circle"].target) == ("folder/program", "circle")
    for name in ("file", "folder/program"):
        entry, status = tree[name], (source / name).stat()
        assert entry.content is not None
        assert (entry.mode, entry.modification_time) == (status.st_mode & 0o7777, status.st_mtime)
        assert entry.content.read_bytes() == (source / name).read_bytes()
        assert (entry.content.stat().st_ino == status.st_ino) == use_hard_links


def test_single_file_is_collected(source: Path, tmp_path: Path) -> None:
    assert set(collect(source / "file", tmp_path / "to", use_hard_links=False) or ()) == {"file"}
    assert collect(source / "none", tmp_path / "to", use_hard_links=False) is None


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside"])
def test_links_to_other_folders_are_left_out(
    target: str, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (source / "link").symlink_to(target)
    assert set(collect(source, tmp_path / "to", use_hard_links=True) or ()) == {"file", "folder", "folder/program"}
    assert f"link leads to {target}" in caplog.text


def test_pipes_and_sockets_are_left_out(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
        tree = collect(source, tmp_path / "to", use_hard_links=False)
    assert set(tree or ()) == {"file", "folder", "folder/program"}
    assert "pipe is neither a file nor a folder" in caplog.text


REMOVE_PROGRAM = """
import os, sys
from pathlib import Path
from microjobs_orchestrator.local.trees import remove
os.setuid(int(sys.argv[2]))
folder = Path(sys.argv[1], "tree")
(folder / "a" / "b").mkdir(parents=True)
(folder / "a" / "b" / "file").touch()
(folder / "outside").symlink_to(sys.argv[1])
(folder / "a" / "b").chmod(0)
(folder / "a").chmod(0o555)
remove(folder)
print(folder.exists())
"""


def test_folders_that_a_job_made_read_only_are_removed() -> None:
    user = os.getuid() or 65534  # root could remove read-only folders
    paths = f"{REPOSITORY}:{REPOSITORY / 'shared'}"
    # Other users cannot read pytest's temporary folders.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        command = [sys.executable, "-c", REMOVE_PROGRAM, folder, str(user)]
        result = subprocess.run(command, env={"PYTHONPATH": paths}, capture_output=True, text=True, check=False)
        assert (result.stdout, result.stderr) == ("False\n", "")
        assert Path(folder).stat().st_mode & 0o777 == 0o777


def test_removing_a_missing_folder_does_nothing(tmp_path: Path) -> None:
    remove(tmp_path / "none")
