"""Archives are extracted completely and inside their folder, or not at all."""

import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from microjobs import archives
from microjobs.errors import UserError

AddMember = Callable[[tarfile.TarFile], None]
"""A function that adds one member to an archive."""


def make_file_member(name: str, content: bytes = b"x") -> AddMember:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))

    return add


def make_link_member(name: str, target: str, member_type: bytes = tarfile.SYMTYPE) -> AddMember:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = member_type, target
        tar.addfile(info)

    return add


def write_archive(folder: Path, *members: AddMember) -> Path:
    path = folder / "model.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for add in members:
            add(tar)
    return path


def test_links_inside_the_archive_are_extracted(tmp_path: Path) -> None:
    path = write_archive(
        tmp_path,
        make_file_member("1/model", b"content"),
        make_link_member("latest", "1"),
        make_link_member("hard", "1/model", tarfile.LNKTYPE),
    )
    archives.unpack(path, tmp_path / "out")
    assert (tmp_path / "out" / "latest" / "model").read_bytes() == b"content"
    assert (tmp_path / "out" / "hard").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([make_file_member("../evil")], "leaves the archive's folder"),
        ([make_file_member("a/../../evil")], "leaves the archive's folder"),
        ([make_file_member("/evil")], "leaves the archive's folder"),
        ([make_link_member("out", "../../etc")], "leaves the archive's folder"),
        ([make_link_member("out", "/etc")], "leaves the archive's folder"),
        ([make_link_member("a", "."), make_link_member("a/b", "../..")], "leaves the archive's folder|links out"),
        ([make_link_member("hard", "../evil", tarfile.LNKTYPE)], "leaves the archive's folder"),
        (
            [make_link_member("hard", "later", tarfile.LNKTYPE)],
            "is a hard link to 'later', which is not an earlier file",
        ),
        ([make_link_member("empty", "")], "not a complete tar archive"),
        ([make_link_member("a", "a")], "not a complete tar archive"),
        ([make_file_member("good/b")], "not a complete tar archive"),
        ([make_file_member("x" * 300)], "not a complete tar archive"),
        ([make_file_member("a/" * 1000 + "b")], "has more than 64 parts"),
        ([make_link_member("pipe", "", tarfile.FIFOTYPE)], "is not a file, a folder or a link"),
        ([make_link_member("device", "", tarfile.CHRTYPE)], "is not a file, a folder or a link"),
    ],
)
def test_dangerous_or_impossible_member_raises_and_leaves_nothing(
    members: list[AddMember], message: str, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    path = write_archive(tmp_path, make_file_member("good"), *members)
    with pytest.raises(UserError, match=message):
        archives.unpack(path, work / "out")
    assert list(work.iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_file_is_never_written_through_a_link(tmp_path: Path) -> None:
    path = write_archive(tmp_path, make_link_member("a", "b"), make_file_member("a/evil"))
    with pytest.raises(UserError, match="not a complete tar archive"):
        archives.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("member_count", [1, 20])
def test_decompression_bomb_raises_before_it_fills_the_disk(
    member_count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit applies to the sum of all members: each of the 20 members is smaller than the limit."""
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED_BYTES", 1000)
    size = 1_000_000 // member_count
    path = write_archive(
        tmp_path, *(make_file_member(f"zeros-{number}", bytes(size)) for number in range(member_count))
    )
    with pytest.raises(UserError, match="possible decompression bomb"):
        archives.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_flipped_bit_in_a_weight_raises(tmp_path: Path) -> None:
    """Weights hardly compress, so the archive contains them unchanged. Only its checksum reveals the changed bit."""
    path = write_archive(tmp_path, make_file_member("model.onnx", random.Random(1).randbytes(200_000)))  # noqa: S311
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a complete tar archive"):
        archives.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["cut", "changed", "zip", "empty"])
def test_damaged_archive_raises_and_leaves_nothing(damage: str, tmp_path: Path) -> None:
    path = write_archive(tmp_path, make_file_member("model.onnx", bytes(range(256)) * 1000))
    content = path.read_bytes()
    damaged_contents = {
        "cut": content[: len(content) // 2],
        "changed": content[:100] + b"\xff" * 20 + content[120:],
        "zip": b"PK\x03\x04 a zip file",
        "empty": b"",
    }
    path.write_bytes(damaged_contents[damage])
    with pytest.raises(UserError, match="not a complete tar archive"):
        archives.unpack(path, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.tar.gz"]


def test_extracted_files_keep_only_the_executable_bit(tmp_path: Path) -> None:
    def make_member(name: str, mode: int) -> AddMember:
        def add_entry(tar: tarfile.TarFile) -> None:
            info = tarfile.TarInfo(name)
            info.mode = mode
            tar.addfile(info)

        return add_entry

    archives.unpack(
        write_archive(tmp_path, make_member("script", 0o6700), make_member("data", 0o222)), tmp_path / "out"
    )
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "out").iterdir()}
    assert modes == {"script": 0o755, "data": 0o644}


def test_too_many_members_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    members = [make_file_member(str(number)) for number in range(4)]
    archives.unpack(write_archive(tmp_path, *members[:3]), tmp_path / "three")
    with pytest.raises(UserError, match="or 3 members: refused"):
        archives.unpack(write_archive(tmp_path, *members), tmp_path / "four")


def test_path_of_64_parts_is_extracted_but_65_raise(tmp_path: Path) -> None:
    archives.unpack(write_archive(tmp_path, make_file_member("a/" * 63 + "b")), tmp_path / "out")
    with pytest.raises(UserError, match="its path has more than 64 parts: use fewer folders"):
        archives.unpack(write_archive(tmp_path, make_file_member("a/" * 64 + "b")), tmp_path / "deeper")


def test_missing_archive_raises(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        archives.unpack(tmp_path / "model.tar.gz", tmp_path / "out")


def test_full_disk_is_reported_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", write)
    with pytest.raises(OSError, match="No space left on device") as raised:
        archives.unpack(write_archive(tmp_path, make_file_member("x")), tmp_path / "out")
    assert raised.value.filename == str(tmp_path / "out")
    assert not (tmp_path / "out").exists()
