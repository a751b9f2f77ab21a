"""Tests for jobs' output files of any depth, size, number and name: each is archived, or an error gives the reason."""

import gzip
import hashlib
import io
import itertools
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from microjobs.contract import Layout
from microjobs_orchestrator.local import space
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle import outputs
from microjobs_orchestrator.local.runtimes import files
from microjobs_orchestrator.local.runtimes.archives import MAX_ENGINE_PATH_BYTES, pack, unpack
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.trees import Tree, discard, remove, sort_names, walk

MAX_RELATIVE_PATH_BYTES = 4000
"""If a relative path is shorter than this, its absolute path in a temporary folder is within Linux's PATH_MAX."""


@contextmanager
def make_folders(top: Path, names: Iterable[str]) -> Iterator[int]:
    """Create nested folders, and yield a descriptor of the innermost folder."""
    top.mkdir(exist_ok=True)
    descriptor = os.open(top, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=descriptor)
        child_descriptor = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = child_descriptor
    yield descriptor
    os.close(descriptor)


def put(folder_descriptor: int, name: str | bytes, content: bytes = b"x") -> None:
    with open(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=folder_descriptor), "wb") as file:  # noqa: PTH123
        file.write(content)


def make_deep_tree(top: Path) -> None:
    with make_folders(top, ["d"] * 1500) as descriptor:
        put(descriptor, "weights")


def make_long_path(top: Path) -> None:
    with make_folders(top, ["d" * 250] * 30) as descriptor:
        put(descriptor, "weights")


def make_wide_folder(top: Path) -> None:
    with make_folders(top, []) as descriptor:
        for number in range(5000):
            put(descriptor, f"{number:05d}")


def make_names_not_in_utf8(top: Path) -> None:
    with make_folders(top, [os.fsdecode(b"caf\xe9")]) as descriptor:
        put(descriptor, b"\xff\xfe\n\x1b[2J")


def make_longest_name(top: Path) -> None:
    with make_folders(top, []) as descriptor:
        put(descriptor, "n" * 255)


def make_folders_without_access(top: Path) -> None:
    (top / "closed" / "inner").mkdir(parents=True)
    (top / "closed" / "inner" / "weights").touch(mode=0)
    (top / "closed" / "inner").chmod(0)
    (top / "closed").chmod(0o500)


def make_links_and_pipe(top: Path) -> None:
    (top / "in").mkdir(parents=True)
    (top / "in" / "weights").write_text("x")
    (top / "in" / "loop").symlink_to("../in")
    (top / "self").symlink_to("self")
    (top.parent / "linked").mkdir()
    (top / "out").symlink_to("../linked")
    os.mkfifo(top / "pipe")


OUTPUTS = {
    "deep": (make_deep_tree, {"d/" * 1500 + "weights"}),
    "long": (make_long_path, {("d" * 250 + "/") * 30 + "weights"}),
    "wide": (make_wide_folder, {f"{number:05d}" for number in range(5000)}),
    "not UTF-8": (make_names_not_in_utf8, {os.fsdecode(b"caf\xe9/\xff\xfe\n\x1b[2J")}),
    "longest name": (make_longest_name, {"n" * 255}),
    "no access": (make_folders_without_access, {"closed/inner/weights"}),
    "links and pipe": (make_links_and_pipe, {"in/weights"}),
}


@pytest.fixture(params=list(OUTPUTS.values()), ids=list(OUTPUTS))
def job_output(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, set[str]]]:
    """An output folder of a job, and the names of its files."""
    make, names = request.param
    make(tmp_path / "output")
    yield tmp_path / "output", names
    for folder in (tmp_path / "output", tmp_path / "collected"):
        remove(folder)  # pytest itself cannot remove these folders
        assert not os.path.lexists(folder)


@pytest.mark.slow
def test_all_files_are_archived_copied_and_removed(job_output: tuple[Path, set[str]], tmp_path: Path) -> None:
    folder, names = job_output
    for use_hard_links in (True, False):
        tree = files.collect(folder, tmp_path / "collected", use_hard_links=use_hard_links)
        assert tree is not None
        assert list_archived_names(tree) == names
        remove(tmp_path / "collected")
    if max(map(len, names)) < MAX_RELATIVE_PATH_BYTES and not (folder / "pipe").exists():
        files.copy_tree(folder, tmp_path / "collected")


def list_archived_names(tree: Tree) -> set[str]:
    """Return the names of the files in a tree's archive, as `tarfile` reads them."""
    file = io.BytesIO()
    outputs.write_archive(tree, file)
    with tarfile.open(fileobj=io.BytesIO(file.getvalue())) as tar:
        return {member.name for member in tar if member.isfile()}


REMOVE_AS_USER = """
import os, sys
from pathlib import Path
from microjobs_orchestrator.local.trees import remove
os.setuid(int(sys.argv[2]))
remove(Path(sys.argv[1]))
"""


def remove_as_user(folder: Path) -> subprocess.CompletedProcess[str]:
    """Make a user who is not root the owner of a tree, and remove the tree as this user."""
    user = os.getuid() or 65534
    for entry in walk(folder.parent):
        os.chown(entry.base_name, user, -1, dir_fd=entry.folder_descriptor, follow_symlinks=False)
    os.chown(folder.parent, user, -1)
    command = [sys.executable, "-c", REMOVE_AS_USER, str(folder), str(user)]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True)


@pytest.fixture
def folder_outside_pytest() -> Iterator[Path]:
    """A folder outside pytest's temporary folder, because only the user who runs pytest can enter the latter."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize("make", [make_deep_tree, make_folders_without_access], ids=["deep", "no access"])
def test_user_other_than_root_removes_the_tree(make: Callable[[Path], None], folder_outside_pytest: Path) -> None:
    make(folder_outside_pytest / "output")
    removal = remove_as_user(folder_outside_pytest / "output")
    assert (removal.returncode, list(folder_outside_pytest.iterdir())) == (0, []), removal.stderr


def test_remove_deletes_all_other_files_before_it_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "output" / "a").mkdir(parents=True)
    for name in ("immutable", "b", "a/c"):
        (tmp_path / "output" / name).touch()
    real_unlink = os.unlink

    def unlink(name: str, *, dir_fd: int) -> None:
        if name == "immutable":
            raise PermissionError(1, "Operation not permitted", name)
        real_unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(PermissionError, match="immutable"):
        remove(tmp_path / "output")
    discard(tmp_path / "output")  # raises nothing; a server that starts removes the rest in this way
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["immutable"]


def test_remove_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "link").symlink_to("../kept")
    (tmp_path / "itself").symlink_to("kept")
    remove(tmp_path / "output")
    remove(tmp_path / "itself")
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "file"]


def test_deep_inputs_are_packed(tmp_path: Path) -> None:
    key = "/".join("d" * 500)
    (tmp_path / "in").mkdir()
    with make_folders(tmp_path / "in", key.split("/")) as descriptor:
        put(descriptor, "x")
    with pack([(tmp_path / "in", "/data")]) as file, tarfile.open(fileobj=file) as tar:
        assert f"data/{key}/x" in tar.getnames()
    files.copy_tree(tmp_path / "in", tmp_path / "copy")
    files.make_read_only(tmp_path / "copy")
    assert (tmp_path / "copy" / key / "x").read_text() == "x"
    remove(tmp_path / "in")
    remove(tmp_path / "copy")


def stream_archive(*members: tuple[str, bytes, int]) -> Iterator[bytes]:
    """Yield an archive as the engine sends it. Its files contain zeros."""
    for name, entry_type, size in (("model", tarfile.DIRTYPE, 0), *members):
        info = tarfile.TarInfo(name)
        info.type, info.size = entry_type, size
        yield info.tobuf(tarfile.PAX_FORMAT)
        for _ in range(-(-size // (1 << 20))):
            yield bytes(min(1 << 20, size))
    yield bytes(1024)


def test_deep_archive_of_the_engine_is_read(tmp_path: Path) -> None:
    names = ["model" + "/d" * depth for depth in range(1, 1501)]
    tree = unpack(
        stream_archive(*((name, tarfile.DIRTYPE, 0) for name in names), (f"{names[-1]}/w", tarfile.REGTYPE, 1)),
        tmp_path,
    )
    assert list_archived_names(tree) == {"d/" * 1500 + "w"}


def test_path_that_is_too_long_for_the_engine_raises(tmp_path: Path) -> None:
    name = "model/" + "d/" * (MAX_ENGINE_PATH_BYTES // 2)
    with pytest.raises(CannotRunError, match=r"the engine cannot copy paths of more than \d+ bytes, such as d/d/"):
        unpack(stream_archive((name, tarfile.DIRTYPE, 0)), tmp_path, str(Layout().model))


def test_too_large_sparse_file_raises_before_it_is_read(tmp_path: Path) -> None:
    byte_count = 0

    def count_read_bytes() -> Iterator[bytes]:
        nonlocal byte_count
        for chunk in stream_archive(("model/huge.bin", tarfile.REGTYPE, 10**15)):
            byte_count += len(chunk)
            yield chunk

    with pytest.raises(CannotRunError, match=r"huge\.bin of 1000\.0 TB does not fit: [\d.]+ .?B can be used"):
        unpack(count_read_bytes(), tmp_path)
    assert byte_count < 10 << 20


@pytest.mark.parametrize("use_hard_links", [True, False])
def test_too_large_sparse_file_of_a_process_raises(tmp_path: Path, use_hard_links: bool) -> None:
    (tmp_path / "output").mkdir()
    with (tmp_path / "output" / "huge.bin").open("wb") as file:
        file.truncate(4 << 40)
    with pytest.raises(CannotRunError, match=r"huge\.bin of 4\.4 TB does not fit"):
        files.collect(tmp_path / "output", tmp_path / "collected", use_hard_links=use_hard_links)


def test_sparse_files_stay_sparse(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    with (tmp_path / "output" / "sparse").open("wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
        file.truncate(128 << 20)
    # The file of the host has content between its holes. The file in the engine's archive has only zeros.
    digests = [
        hashlib.sha256(content).digest()
        for content in ((tmp_path / "output" / "sparse").read_bytes(), bytes(128 << 20))
    ]
    trees = [files.collect(tmp_path / "output", tmp_path / "collected", use_hard_links=False)]
    trees.append(unpack(stream_archive(("model/sparse", tarfile.REGTYPE, 128 << 20)), tmp_path / "unpacked"))
    for tree, digest in zip(trees, digests, strict=True):
        assert tree is not None
        content = tree["sparse"].content
        assert content is not None
        assert content.stat().st_size == 128 << 20
        assert content.stat().st_blocks * 512 < 8 << 20
        assert hashlib.sha256(content.read_bytes()).digest() == digest


def test_files_that_are_too_large_in_total_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space.FreeSpace, "measure_available_bytes", lambda _: 1_000_000)
    members = [(f"model/{number}", tarfile.REGTYPE, 300_032) for number in range(5)]
    with pytest.raises(CannotRunError, match=r"3 of 300\.0 kB does not fit: 1\.0 MB can be used"):
        unpack(stream_archive(*members), tmp_path)


def test_archive_raises_before_the_device_is_full(
    tmp_path: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "weights").write_bytes(os.urandom(1 << 20))
    tree = files.collect(tmp_path / "output", tmp_path / "collected", use_hard_links=True)
    assert tree is not None
    monkeypatch.setattr(space, "CHECK_INTERVAL_BYTES", 1 << 16)
    available_bytes = itertools.chain([10**9, 10**9, 10**6], itertools.repeat(-1))
    monkeypatch.setattr(space.FreeSpace, "measure_available_bytes", lambda _: next(available_bytes))
    with pytest.raises(CannotRunError, match=r"model\.tar\.gz does not fit"):
        outputs.upload_archive(store, tree, "s3://data/model.tar.gz", tmp_path)
    assert list(store.list("data")) == []


def test_error_names_a_file_whose_name_cannot_be_an_object_key(tmp_path: Path, store: ObjectStore) -> None:
    make_names_not_in_utf8(tmp_path / "output")
    tree = files.collect(tmp_path / "output", tmp_path / "collected", use_hard_links=True)
    assert tree is not None
    with pytest.raises(ServiceError, match=r"^ClientError: Artifact upload failed: out/caf\\xe9/"):
        outputs.upload(store, tree, "s3://data/out")


def test_hard_links_become_two_objects(tmp_path: Path, store: ObjectStore) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("model/a"))
        info = tarfile.TarInfo("model/b")
        info.type, info.linkname = tarfile.LNKTYPE, "model/a"
        tar.addfile(info)
    outputs.upload(store, unpack([file.getvalue()], tmp_path / "collected"), "s3://data/out")
    assert [item.key for item in store.list("data")] == ["out/a", "out/b"]


def test_sort_names_puts_folders_before_their_content(tmp_path: Path) -> None:
    for name in ("a-b", "a/z", "a.txt"):
        (tmp_path / "output" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "output" / name).touch()
    tree = files.collect(tmp_path / "output", tmp_path / "collected", use_hard_links=True)
    assert sort_names(tree or {}) == ["a", "a/z", "a-b", "a.txt"]


def test_archive_compresses_sparse_files(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    with (tmp_path / "output" / "sparse").open("wb") as file:
        file.truncate(64 << 20)
    tree = files.collect(tmp_path / "output", tmp_path / "collected", use_hard_links=True)
    packed_file = io.BytesIO()
    outputs.write_archive(tree or {}, packed_file)
    assert len(packed_file.getvalue()) < 1 << 20
    assert len(gzip.decompress(packed_file.getvalue())) > 64 << 20
