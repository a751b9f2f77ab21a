"""Tests for splitting the input objects of transform jobs into request bodies."""

import gzip
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microjobs_orchestrator.local.recordio import MAGIC
from microjobs_orchestrator.local.resources.transform.records import (
    DamagedError,
    RecordTooLargeError,
    read_bodies,
    read_chunks,
)


def make_recordio_parts(*parts: tuple[int, bytes]) -> list[bytes]:
    """Encode parts of MXNet's records. Each argument is the flag and the data of one part."""
    return [struct.pack("<II", MAGIC, flag << 29 | len(data)) + data + bytes(-len(data) % 4) for flag, data in parts]


def make_tfrecord(data: bytes) -> bytes:
    return struct.pack("<QI", len(data), 1) + data + b"sums"


MIXED_LINES = b"one\r\n\ntwo\nlast without an end"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "object").write_bytes(MIXED_LINES)
    return tmp_path / "object"


def test_single_records_keep_line_ends(file: Path) -> None:
    bodies = list(read_bodies(file, split="Line", strategy="SingleRecord", max_bytes=100))
    assert bodies == [b"one\r\n", b"\n", b"two\n", b"last without an end"]


def test_multi_record_fills_bodies(file: Path) -> None:
    assert list(read_bodies(file, split="Line", strategy="MultiRecord", max_bytes=20)) == [
        MIXED_LINES[:10],
        MIXED_LINES[10:],
    ]


def test_split_none_sends_the_whole_object(file: Path) -> None:
    assert list(read_bodies(file, split="None", strategy="MultiRecord", max_bytes=len(MIXED_LINES))) == [MIXED_LINES]


@pytest.mark.parametrize(("split", "description"), [("None", "the object"), ("Line", "line 4")])
def test_error_names_oversized_record(file: Path, split: str, description: str) -> None:
    with pytest.raises(RecordTooLargeError, match=f"{description} is larger"):
        list(read_bodies(file, split=split, strategy="SingleRecord", max_bytes=18))


@given(
    content=st.binary(max_size=60).map(lambda data: data.replace(b"\x01", b"\n")),
    strategy=st.sampled_from(["SingleRecord", "MultiRecord"]),
)
def test_bodies_contain_all_bytes_and_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, strategy: str
) -> None:
    file = tmp_path_factory.mktemp("records") / "object"
    file.write_bytes(content)
    bodies = list(read_bodies(file, split="Line", strategy=strategy, max_bytes=64))
    assert b"".join(bodies) == content
    assert all(body.endswith(b"\n") for body in bodies[:-1])


def test_gzip_is_decompressed_before_the_split(file: Path) -> None:
    file.write_bytes(gzip.compress(MIXED_LINES))
    bodies = list(read_bodies(file, split="Line", strategy="SingleRecord", max_bytes=100, compression="Gzip"))
    assert b"".join(bodies) == b"".join(read_chunks(file, "Gzip")) == MIXED_LINES
    assert len(bodies) == 4


@pytest.mark.parametrize(
    "content",
    [MIXED_LINES, gzip.compress(MIXED_LINES)[:-9], gzip.compress(MIXED_LINES)[:20] + b"xx"],
    ids=["text", "short", "damaged"],
)
def test_invalid_gzip_raises(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(DamagedError, match="CompressionType is Gzip"):
        list(read_bodies(file, split="None", strategy="MultiRecord", max_bytes=100, compression="Gzip"))
    with pytest.raises(DamagedError, match="CompressionType is Gzip"):
        list(read_chunks(file, "Gzip"))


def test_decompression_stops_at_the_size_limit(file: Path) -> None:
    file.write_bytes(gzip.compress(bytes(50 << 20)))
    tracemalloc.start()
    with pytest.raises(RecordTooLargeError):
        list(read_bodies(file, split="None", strategy="MultiRecord", max_bytes=1000, compression="Gzip"))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1 << 20


RECORD_PARTS = make_recordio_parts((0, b"one"), (0, b"four"), (1, b"in"), (2, b"three"), (3, b"parts"))


def test_recordio_records_in_one_body_keep_their_framing(file: Path) -> None:
    file.write_bytes(b"".join(RECORD_PARTS))
    bodies = list(read_bodies(file, split="RecordIO", strategy="MultiRecord", max_bytes=44))
    assert bodies == [b"".join(RECORD_PARTS[:2]), b"".join(RECORD_PARTS[2:])]


def test_single_recordio_records_have_no_padding(file: Path) -> None:
    file.write_bytes(b"".join(RECORD_PARTS))
    bodies = list(read_bodies(file, split="RecordIO", strategy="SingleRecord", max_bytes=44))
    assert bodies == [RECORD_PARTS[0][:-1], RECORD_PARTS[1], b"".join(RECORD_PARTS[2:])[:-3]]


@pytest.mark.parametrize("strategy", ["SingleRecord", "MultiRecord"])
def test_tfrecords_are_split(file: Path, strategy: str) -> None:
    records = [make_tfrecord(b"one"), make_tfrecord(b""), make_tfrecord(b"three\n")]
    file.write_bytes(b"".join(records))
    bodies = list(read_bodies(file, split="TFRecord", strategy=strategy, max_bytes=41))
    assert bodies == (records if strategy == "SingleRecord" else [b"".join(records[:2]), records[2]])


@pytest.mark.parametrize(
    ("split", "content", "error", "reason"),
    [
        (
            "RecordIO",
            b"not a RecordIO file",
            DamagedError,
            "begins with 0xced7230a, not 0x20746f6e",
        ),
        ("RecordIO", RECORD_PARTS[0] + RECORD_PARTS[1][:-1], DamagedError, "record 2 is incomplete"),
        ("RecordIO", RECORD_PARTS[0] + RECORD_PARTS[2], DamagedError, "record 2 ends before its last part"),
        (
            "RecordIO",
            RECORD_PARTS[0] + b"".join(make_recordio_parts((0, bytes(99)))),
            RecordTooLargeError,
            "record 2 is larger",
        ),
        ("TFRecord", make_tfrecord(b"one")[:-1], DamagedError, "record 1 is incomplete"),
        ("TFRecord", b"short", DamagedError, "record 1 is incomplete"),
        ("TFRecord", b"not a TFRecord at all", RecordTooLargeError, "or is not a TFRecord"),
    ],
)
def test_damaged_binary_record_raises(
    file: Path, split: str, content: bytes, error: type[Exception], reason: str
) -> None:
    file.write_bytes(content)
    with pytest.raises(error, match=reason):
        list(read_bodies(file, split=split, strategy="MultiRecord", max_bytes=50))
