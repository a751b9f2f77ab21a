"""Splits an object into the request bodies of a transform job.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform.html

The concatenated bodies are the decompressed object, byte for byte: lines keep their ends, and empty lines are records,
too. Only RecordIO records that are sent one by one lose their padding, as AWS documents for SplitType.
"""

import gzip
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO

from microjobs_orchestrator.local import recordio

CHUNK_BYTES = 1 << 20


class RecordTooLargeError(Exception):
    """A record does not fit into one request."""


class DamagedError(Exception):
    """An object does not have the format that CompressionType or SplitType names."""


def read_bodies(path: Path, split: str, strategy: str, max_bytes: int, compression: str = "None") -> Iterator[bytes]:
    """Yield the bodies, of at most `max_bytes`, one by one. Only one body is in memory at a time.

    Raise RecordTooLargeError for a larger record, and DamagedError if the object does not have the format of `split`
    (SplitType) or `compression` (CompressionType). With the strategy `MultiRecord`, a body has as many
    records as fit.
    """
    sends_single_records = strategy == "SingleRecord"
    with _open(path, compression) as file:
        match split:
            case "Line":
                records = _read_lines(file, max_bytes)
            case "RecordIO":
                records = _read_recordio(file, max_bytes, keep_padding=not sends_single_records)
            case "TFRecord":
                records = _read_tfrecords(file, max_bytes)
            case _:
                yield _read_object(file, max_bytes)
                return
        yield from records if sends_single_records else _join_records(records, max_bytes)


def read_chunks(path: Path, compression: str = "None") -> Iterator[bytes]:
    """Yield the decompressed file in chunks. Raise DamagedError if the file does not have the named compression."""
    with _open(path, compression) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


@contextmanager
def _open(path: Path, compression: str) -> Iterator[IO[bytes]]:
    with path.open("rb") as raw_file:
        if compression == "None":
            yield raw_file
            return
        try:
            with BufferedReader(gzip.GzipFile(fileobj=raw_file)) as file:
                yield file
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DamagedError(f"CompressionType is Gzip, but the object is not a gzip file: {error}") from error


def _read_object(file: IO[bytes], max_bytes: int) -> bytes:
    content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise RecordTooLargeError("the object is larger than a request may be, and SplitType None does not split it")
    return content


def _join_records(records: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    body = bytearray()
    for record in records:
        if len(body) + len(record) > max_bytes:
            yield bytes(body)
            body.clear()
        body += record
    if body:
        yield bytes(body)


# --- the records of each format, with their framing ---


def _read_lines(file: IO[bytes], max_bytes: int) -> Iterator[bytes]:
    number = 0
    while line := file.readline(max_bytes + 1):
        number += 1
        if len(line) > max_bytes:
            raise RecordTooLargeError(f"line {number} is larger than a request may be")
        yield line


def _read_recordio(file: IO[bytes], max_bytes: int, *, keep_padding: bool) -> Iterator[bytes]:
    record, number = bytearray(), 1
    while content := file.read(recordio.HEADER_BYTES):
        _require_complete(content, recordio.HEADER_BYTES, number)
        try:
            header = recordio.parse_header(content)
        except ValueError as error:
            raise DamagedError(f"SplitType is RecordIO, and record {number} is invalid: {error}") from None
        if len(record) + recordio.HEADER_BYTES + header.padded_length > max_bytes:
            raise RecordTooLargeError(f"record {number} is larger than a request may be")
        record += content + _require_complete(file.read(header.padded_length), header.padded_length, number)
        if header.is_last:
            padding = 0 if keep_padding else header.padded_length - header.length
            yield bytes(record[: len(record) - padding])
            record.clear()
            number += 1
    if record:
        raise DamagedError(f"record {number} ends before its last part")


def _read_tfrecords(file: IO[bytes], max_bytes: int) -> Iterator[bytes]:
    """Read TensorFlow's records: length, checksum of the length, data, checksum of the data. They have no padding."""
    number = 0
    while header := file.read(12):
        number += 1
        (length,) = struct.unpack("<Q", _require_complete(header, 12, number)[:8])
        if 12 + length + 4 > max_bytes:
            raise RecordTooLargeError(f"record {number} is larger than a request may be, or is not a TFRecord")
        yield header + _require_complete(file.read(length + 4), length + 4, number)


def _require_complete(content: bytes, size: int, number: int) -> bytes:
    if len(content) < size:
        raise DamagedError(f"record {number} is incomplete: the object ends inside it")
    return content
