"""Model archives: extracted whole and inside their folder, or refused."""

import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from microjobs import bundle
from microjobs.errors import UserError
from microjobs.scaler import Scaler, read_scaler, write_scaler
from tests.bundles import linear_bundle

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


def test_bundle_survives_packing_and_unpacking(tmp_path: Path) -> None:
    linear_bundle(tmp_path / "model", [1.0, 2.0], 0.5, Scaler([3, 3], [0.0, 1.0], [1.0, 2.0]))
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "model", ".")
    bundle.unpack(tmp_path / "model.tar.gz", tmp_path / "there")
    read = bundle.read_bundle(tmp_path / "there")
    assert read.manifest.features == 2
    assert read.scaler == read_scaler(tmp_path / "model")


def test_links_inside_the_archive_are_kept(tmp_path: Path) -> None:
    path = archive(
        tmp_path,
        file_member("1/model", b"content"),
        link_member("latest", "1"),
        link_member("hard", "1/model", tarfile.LNKTYPE),
    )
    bundle.unpack(path, tmp_path / "out")
    assert (tmp_path / "out" / "latest" / "model").read_bytes() == b"content"
    assert (tmp_path / "out" / "hard").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([file_member("../evil")], "leaves the archive's folder"),
        ([file_member("a/../../evil")], "leaves the archive's folder"),
        ([file_member("/evil")], "leaves the archive's folder"),
        ([link_member("out", "../../etc")], "leaves the archive's folder"),
        ([link_member("out", "/etc")], "leaves the archive's folder"),
        ([link_member("a", "."), link_member("a/b", "../..")], "leaves the archive's folder|links out"),
        ([link_member("hard", "../evil", tarfile.LNKTYPE)], "leaves the archive's folder"),
        ([link_member("empty", "")], "not a whole tar archive"),
        ([link_member("a", "a")], "not a whole tar archive"),
        ([file_member("good/b")], "not a whole tar archive"),
        ([file_member("x" * 300)], "not a whole tar archive"),
        ([file_member("a/" * 1000 + "b")], "more than 64 folders deep"),
        ([link_member("pipe", "", tarfile.FIFOTYPE)], "neither a file nor a folder"),
        ([link_member("device", "", tarfile.CHRTYPE)], "neither a file nor a folder"),
    ],
)
def test_member_that_would_leave_the_folder_is_refused(members: list[Member], words: str, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    path = archive(tmp_path, file_member("good"), *members)
    with pytest.raises(UserError, match=words):
        bundle.unpack(path, work / "out")
    assert list(work.iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_file_is_never_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    path = archive(tmp_path, link_member("a", "b"), file_member("a/evil"))
    bundle_or_error = None
    try:
        bundle.unpack(path, tmp_path / "out")
    except (UserError, FileExistsError) as error:
        bundle_or_error = error
    assert bundle_or_error is not None
    assert not (tmp_path / "out").exists()


def test_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "SMALL", 1000)
    path = archive(tmp_path, file_member("zeros", bytes(1_000_000)))
    with pytest.raises(UserError, match="refused as a bomb"):
        bundle.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bit_that_was_flipped_in_a_weight_is_noticed(tmp_path: Path) -> None:
    """Weights hardly compress: they lie in the archive as they are, and only its checksum tells."""
    path = archive(tmp_path, file_member("model.onnx", random.Random(1).randbytes(200_000)))  # noqa: S311
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a whole tar archive"):
        bundle.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["cut", "changed", "other", "empty"])
def test_damaged_archive_is_refused_and_leaves_nothing(damage: str, tmp_path: Path) -> None:
    path = archive(tmp_path, file_member("model.onnx", bytes(range(256)) * 1000))
    content = path.read_bytes()
    damaged = {
        "cut": content[: len(content) // 2],
        "changed": content[:100] + b"\xff" * 20 + content[120:],
        "other": b"PK\x03\x04 a zip file",
        "empty": b"",
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(UserError, match="not a whole tar archive"):
        bundle.unpack(path, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.tar.gz"]


@pytest.mark.parametrize("name", [bundle.MODEL_FILE, bundle.MANIFEST_FILE])
def test_folder_without_a_file_is_no_bundle(name: str, tmp_path: Path) -> None:
    linear_bundle(tmp_path, [1.0], 0.0)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"has no {name}"):
        bundle.read_bundle(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"framework": "x", "features": "many"}'])
def test_damaged_manifest_is_refused(content: str, tmp_path: Path) -> None:
    linear_bundle(tmp_path, [1.0], 0.0)
    (tmp_path / bundle.MANIFEST_FILE).write_text(content)
    with pytest.raises(UserError, match="is not a manifest"):
        bundle.read_bundle(tmp_path)


def test_scaler_of_other_features_is_refused(tmp_path: Path) -> None:
    linear_bundle(tmp_path, [1.0], 0.0, Scaler([1, 1], [0.0, 0.0], [1.0, 1.0]))
    with pytest.raises(UserError, match="the scaler has 2 features, the model 1"):
        bundle.read_bundle(tmp_path)


@pytest.mark.parametrize("content", ["", '{"count": [1]}', '{"count": [1], "mean": [0], "scale": [0]}'])
def test_damaged_scaler_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "scaler.json").write_text(content)
    with pytest.raises(UserError, match="scaler"):
        read_scaler(tmp_path)


def test_scaler_round_trips_to_the_last_digit(tmp_path: Path) -> None:
    scaler = Scaler([3], [0.1 + 0.2], [1 / 3])
    write_scaler(tmp_path, scaler)
    assert read_scaler(tmp_path) == scaler
