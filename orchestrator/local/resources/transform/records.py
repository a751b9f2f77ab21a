"""The request bodies that a transform job makes of an object.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform.html

Joined, the bodies are the object as it is without compression, byte for byte: lines keep their ends, and empty lines
are records too. Only binary records that are sent one by one lose what pads them, as AWS says of SplitType.
"""

import gzip
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO

from microjobs_orchestrator.local import recordio

CHUNK = 1 << 20


class RecordTooLargeError(Exception):
    """A record does not fit into one request."""


class DamagedError(Exception):
    """An object is not what CompressionType or SplitType says."""


def bodies(path: Path, *, split: str, strategy: str, most: int, compression: str = "None") -> Iterator[bytes]:
    """The bodies, one by one; the file is never in memory as a whole unless it is one record.

    Args:
        split: `Line`, `RecordIO`, `TFRecord`, or `None`: the object is one record.
        strategy: `MultiRecord`, as many records as fit, or `SingleRecord`.
        most: bytes of a body.
        compression: `Gzip` or `None`.

    Raises:
        RecordTooLargeError: a record is larger than that.
        DamagedError: the object is not what was said.
    """
    with _opened(path, compression) as file:
        if split == "None":
            yield _whole(file, most)
            return
        is_single = strategy == "SingleRecord"
        records = SPLITS[split](file, most, is_single)
        yield from records if is_single else _joined(records, most)


def chunks(path: Path, compression: str = "None") -> Iterator[bytes]:
    """A file in pieces, for a body that is sent while it is read; raises `DamagedError` as `bodies`."""
    with _opened(path, compression) as file:
        while chunk := file.read(CHUNK):
            yield chunk


@contextmanager
def _opened(path: Path, compression: str) -> Iterator[IO[bytes]]:
    with path.open("rb") as plain:
        if compression == "None":
            yield plain
            return
        try:
            with BufferedReader(gzip.GzipFile(fileobj=plain)) as file:
                yield file
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DamagedError(f"CompressionType is Gzip, and the object is not: {error}") from error


def _whole(file: IO[bytes], most: int) -> bytes:
    content = file.read(most + 1)
    if len(content) > most:
        raise RecordTooLargeError("the object is larger than a request may be, and SplitType is None")
    return content


def _joined(records: Iterable[bytes], most: int) -> Iterator[bytes]:
    batch = bytearray()
    for record in records:
        if len(batch) + len(record) > most:
            yield bytes(batch)
            batch.clear()
        batch += record
    if batch:
        yield bytes(batch)


# --- records of each kind, with their framing ---


def _lines(file: IO[bytes], most: int, _: bool) -> Iterator[bytes]:
    number = 0
    while line := file.readline(most + 1):
        number += 1
        if len(line) > most:
            raise RecordTooLargeError(f"line {number} is larger than a request may be")
        yield line


def _recordio(file: IO[bytes], most: int, without_padding: bool) -> Iterator[bytes]:
    """Read RecordIO records, each of which may have several parts."""
    record, number = bytearray(), 1
    while content := file.read(recordio.HEADER_BYTES):
        header = _recordio_header(_complete(content, recordio.HEADER_BYTES, number), number)
        if len(record) + recordio.HEADER_BYTES + header.padded_length > most:
            raise RecordTooLargeError(f"record {number} is larger than a request may be")
        record += content + _complete(file.read(header.padded_length), header.padded_length, number)
        if header.is_last:
            end = len(record) - header.padded_length + header.length if without_padding else None
            yield bytes(record[:end])
            record.clear()
            number += 1
    if record:
        raise DamagedError(f"record {number} ends before its last part")


def _recordio_header(content: bytes, number: int) -> recordio.Header:
    try:
        return recordio.parse_header(content)
    except ValueError as error:
        raise DamagedError(f"SplitType is RecordIO, and record {number} is invalid: {error}") from None


def _tfrecord(file: IO[bytes], most: int, _: bool) -> Iterator[bytes]:
    """TensorFlow's: length, its checksum, data, its checksum; nothing pads them."""
    number = 0
    while header := file.read(12):
        number += 1
        (length,) = struct.unpack("<Q", _complete(header, 12, number)[:8])
        if 12 + length + 4 > most:
            raise RecordTooLargeError(f"record {number} is larger than a request may be, or is no TFRecord")
        yield header + _complete(file.read(length + 4), length + 4, number)


def _complete(content: bytes, size: int, number: int) -> bytes:
    if len(content) < size:
        raise DamagedError(f"record {number} is cut off")
    return content


SPLITS: Mapping[str, Callable[[IO[bytes], int, bool], Iterator[bytes]]] = {
    "Line": _lines,
    "RecordIO": _recordio,
    "TFRecord": _tfrecord,
}
