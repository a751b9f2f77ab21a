"""Archives are extracted completely and inside their folder, or not at all."""

import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from microjobs import archives
from microjobs.errors import UserError

Member = Callable[[tarfile.TarFile], None]


def file_member(name: str, content: bytes = b"x") -> Member:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))

    return add


def link_member(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        tar.addfile(info)

    return add


def archive(folder: Path, *members: Member) -> Path:
    path = folder / "model.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for add in members:
            add(tar)
    return path


def test_links_inside_the_archive_are_extracted(tmp_path: Path) -> None:
    path = archive(
        tmp_path,
        file_member("1/model", b"content"),
        link_member("latest", "1"),
        link_member("hard", "1/model", tarfile.LNKTYPE),
    )
    archives.unpack(path, tmp_path / "out")
    assert (tmp_path / "out" / "latest" / "model").read_bytes() == b"content"
    assert (tmp_path / "out" / "hard").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([file_member("../evil")], "leaves the archive's folder"),
        ([file_member("a/../../evil")], "leaves the archive's folder"),
        ([file_member("/evil")], "leaves the archive's folder"),
        ([link_member("out", "../../etc")], "leaves the archive's folder"),
        ([link_member("out", "/etc")], "leaves the archive's folder"),
        ([link_member("a", "."), link_member("a/b", "../..")], "leaves the archive's folder|links out"),
        ([link_member("hard", "../evil", tarfile.LNKTYPE)], "leaves the archive's folder"),
        ([link_member("empty", "")], "not a complete tar archive"),
        ([link_member("a", "a")], "not a complete tar archive"),
        ([file_member("good/b")], "not a complete tar archive"),
        ([file_member("x" * 300)], "not a complete tar archive"),
        ([file_member("a/" * 1000 + "b")], "more than 64 folders deep"),
        ([link_member("pipe", "", tarfile.FIFOTYPE)], "is not a file, a folder or a link"),
        ([link_member("device", "", tarfile.CHRTYPE)], "is not a file, a folder or a link"),
    ],
)
def test_member_that_would_leave_the_folder_raises(members: list[Member], message: str, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    path = archive(tmp_path, file_member("good"), *members)
    with pytest.raises(UserError, match=message):
        archives.unpack(path, work / "out")
    assert list(work.iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_file_is_never_written_through_a_link(tmp_path: Path) -> None:
    path = archive(tmp_path, link_member("a", "b"), file_member("a/evil"))
    with pytest.raises(UserError, match="not a complete tar archive"):
        archives.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("members", [1, 20])
def test_bomb_raises_before_it_fills_the_disk(members: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit applies to the sum of all members: each of the 20 members is smaller than the limit."""
    monkeypatch.setattr(archives, "MIN_LIMIT_BYTES", 1000)
    size = 1_000_000 // members
    path = archive(tmp_path, *(file_member(f"zeros-{number}", bytes(size)) for number in range(members)))
    with pytest.raises(UserError, match="possible decompression bomb"):
        archives.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_flipped_bit_in_a_weight_raises(tmp_path: Path) -> None:
    """Weights hardly compress: the archive contains them unchanged, so that only its checksum finds the error."""
    path = archive(tmp_path, file_member("model.onnx", random.Random(1).randbytes(200_000)))  # noqa: S311
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a complete tar archive"):
        archives.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["cut", "changed", "other", "empty"])
def test_damaged_archive_raises_and_leaves_nothing(damage: str, tmp_path: Path) -> None:
    path = archive(tmp_path, file_member("model.onnx", bytes(range(256)) * 1000))
    content = path.read_bytes()
    damaged = {
        "cut": content[: len(content) // 2],
        "changed": content[:100] + b"\xff" * 20 + content[120:],
        "other": b"PK\x03\x04 a zip file",
        "empty": b"",
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(UserError, match="not a complete tar archive"):
        archives.unpack(path, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.tar.gz"]


def test_extracted_files_keep_only_the_executable_bit(tmp_path: Path) -> None:
    def add(name: str, mode: int) -> Member:
        def to(tar: tarfile.TarFile) -> None:
            info = tarfile.TarInfo(name)
            info.mode = mode
            tar.addfile(info)

        return to

    archives.unpack(archive(tmp_path, add("script", 0o6700), add("data", 0o222)), tmp_path / "out")
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "out").iterdir()}
    assert modes == {"script": 0o755, "data": 0o644}


def test_too_many_members_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    members = [file_member(str(number)) for number in range(4)]
    archives.unpack(archive(tmp_path, *members[:3]), tmp_path / "three")
    with pytest.raises(UserError, match="or 3 members: refused"):
        archives.unpack(archive(tmp_path, *members), tmp_path / "four")


def test_deepest_path_is_extracted(tmp_path: Path) -> None:
    archives.unpack(archive(tmp_path, file_member("a/" * 63 + "b")), tmp_path / "out")
    with pytest.raises(UserError, match="more than 64 folders deep"):
        archives.unpack(archive(tmp_path, file_member("a/" * 64 + "b")), tmp_path / "deeper")


def test_missing_archive_raises(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        archives.unpack(tmp_path / "model.tar.gz", tmp_path / "out")


def test_full_disk_is_reported_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", write)
    with pytest.raises(OSError, match="No space left on device") as raised:
        archives.unpack(archive(tmp_path, file_member("x")), tmp_path / "out")
    assert raised.value.filename == str(tmp_path / "out")
    assert not (tmp_path / "out").exists()
