"""Objects of buckets: the beginning of an object, the members of an archive, and downloads."""

import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from werkzeug import Response

from microjobs_orchestrator.local.console.downloads import Downloads, make_attachment
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.exchange import AnyService, Exchange
from microjobs_orchestrator.local.protocols.answer import Answer
from microjobs_orchestrator.local.protocols.aws_json import parse_object
from microjobs_orchestrator.local.protocols.models import operation_model
from microjobs_orchestrator.local.protocols.validation import validate

CONTENT_TYPE = "application/octet-stream"
"""Browsers never execute this type, whatever the object contains."""
MAX_PREVIEW_BYTES = 8 << 20
MAX_MEMBERS = 1000
MAX_ARCHIVE_BYTES = 256 << 20
"""Uncompressed bytes of an archive that are read for the list of its members."""


class Objects:
    """Reads objects with the operation GetObject.

    Args:
        s3: the service.
        downloads: one-time paths of the objects.
    """

    def __init__(self, s3: AnyService, downloads: Downloads) -> None:
        self._s3 = s3
        self._downloads = downloads

    def preview(self, exchange: Exchange) -> Response:
        """Return the first bytes of an object: as many as the member `bytes` requests."""
        members = _read_members(exchange)
        count = members.get("bytes")
        if type(count) is not int or not 1 <= count <= MAX_PREVIEW_BYTES:
            message = f"bytes is {count!r:.100}; it must be a number from 1 to {MAX_PREVIEW_BYTES}"
            raise ServiceError("ValidationException", message)
        with _Reader(self._get(exchange, members)) as reader:
            return Response(reader.read(count), content_type=CONTENT_TYPE)

    def list_archive(self, exchange: Exchange) -> Response:
        """Return the first members of a tar archive, compressed with gzip or not."""
        members = _read_members(exchange)
        with _Reader(self._get(exchange, members)) as reader:
            found, is_complete = _list_members(io.BufferedReader(reader))
        return Response(json.dumps({"members": found, "isComplete": is_complete}), content_type="application/json")

    def add_download(self, exchange: Exchange, cookie: str) -> Response:
        """Return the path of a download of an object."""
        members = _read_members(exchange)
        name = str(members["key"]).rstrip("/").rpartition("/")[2]

        def respond() -> Response:
            answer = self._get(exchange, members)
            response = make_attachment(answer.body or (), name, CONTENT_TYPE)
            response.content_length = answer.members["ContentLength"]
            return response

        return self._downloads.add(cookie, respond)

    def _get(self, exchange: Exchange, members: dict[str, Any]) -> Answer:
        if isinstance(self._s3, Mapping):
            raise TypeError("S3 is not a streaming service")
        exchange.service, exchange.operation = "s3", operation_model("s3", "GetObject")
        exchange.members = {"Bucket": members["bucket"], "Key": members["key"]}
        validate(exchange.operation, exchange.members)
        return self._s3.invoke(exchange)


def _read_members(exchange: Exchange) -> dict[str, Any]:
    members = parse_object("objects", exchange.request.get_data())
    for name in ("bucket", "key"):
        if not isinstance(members.get(name), str):
            raise ServiceError("ValidationException", f"the body must have the text {name!r}")
    return members


class _Reader(io.RawIOBase):
    """The body of an answer, as a file. `close` closes the body."""

    def __init__(self, answer: Answer) -> None:
        self._body = answer.body or ()
        self._blocks: Iterator[bytes] = iter(self._body)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return `size` bytes, or fewer at the end."""
        while len(self._rest) < size and (block := next(self._blocks, b"")):
            self._rest += block
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def readinto(self, buffer: Any, /) -> int:
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        super().close()
        if close := getattr(self._body, "close", None):
            close()


class _LimitReachedError(Exception):
    """The limit for the uncompressed bytes of an archive is reached."""


class _Limited:
    """Reads a file, up to MAX_ARCHIVE_BYTES."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._remaining = MAX_ARCHIVE_BYTES

    def read(self, size: int) -> bytes:
        if self._remaining <= 0:
            raise _LimitReachedError
        found: bytes = self._file.read(min(size, self._remaining))
        self._remaining -= len(found)
        return found


def _list_members(file: io.BufferedReader) -> tuple[list[dict[str, Any]], bool]:
    """Return the members, and whether these are all members."""
    is_compressed = file.peek(2)[:2] == b"\x1f\x8b"
    # In this mode, tarfile only calls `read`; its type requires more.
    content: Any = _Limited(gzip.GzipFile(fileobj=file) if is_compressed else file)
    found: list[dict[str, Any]] = []
    try:
        with tarfile.open(fileobj=content, mode="r|") as archive:
            for member in islice(archive, MAX_MEMBERS + 1):  # the members before an error remain
                found += [{"name": member.name, "size": member.size, "type": _describe_type(member)}]
    except _LimitReachedError:
        return found, False
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ServiceError(
            "ValidationException", f"the object is not a tar archive, or it is damaged: {error}"
        ) from None
    return found[:MAX_MEMBERS], len(found) <= MAX_MEMBERS


def _describe_type(member: tarfile.TarInfo) -> str:
    if member.isfile():
        return "file"
    return "folder" if member.isdir() else "link or other"
