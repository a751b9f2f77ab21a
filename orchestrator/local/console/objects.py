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
from microjobs_orchestrator.local.gateway.request_state import AnyService, RequestState
from microjobs_orchestrator.local.protocols.aws_json import parse_object
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.protocols.results import OperationResult
from microjobs_orchestrator.local.protocols.validation import validate

CONTENT_TYPE = "application/octet-stream"
"""Browsers never execute this type, whatever the object contains."""
MAX_PREVIEW_BYTES = 8 << 20
MAX_ARCHIVE_MEMBERS = 1000
MAX_ARCHIVE_BYTES = 256 << 20
"""Maximum number of uncompressed bytes that the server reads from an archive to list its members."""


class Objects:
    """Reads objects with the operation GetObject.

    Args:
        s3: the service S3.
        downloads: stores the downloads of objects until browsers start them.
    """

    def __init__(self, s3: AnyService, downloads: Downloads) -> None:
        self._s3 = s3
        self._downloads = downloads

    def preview(self, state: RequestState) -> Response:
        """Return the first bytes of an object. The member `bytes` of the request states their number."""
        members = _read_members(state)
        count = members.get("bytes")
        if type(count) is not int or not 1 <= count <= MAX_PREVIEW_BYTES:
            message = f"bytes is {count!r:.100}; it must be a number from 1 to {MAX_PREVIEW_BYTES}"
            raise ServiceError("ValidationException", message)
        with _Reader(self._get(state, members)) as reader:
            return Response(reader.read(count), content_type=CONTENT_TYPE)

    def list_archive(self, state: RequestState) -> Response:
        """Return the first members of a tar archive, which may be compressed with gzip."""
        members = _read_members(state)
        with _Reader(self._get(state, members)) as reader:
            archive_members, is_complete = _list_archive_members(io.BufferedReader(reader))
        return Response(
            json.dumps({"members": archive_members, "isComplete": is_complete}), content_type="application/json"
        )

    def add_download(self, state: RequestState, cookie: str) -> Response:
        """Add a download of an object, and return its one-time path."""
        members = _read_members(state)
        name = str(members["key"]).rstrip("/").rpartition("/")[2]

        def respond() -> Response:
            result = self._get(state, members)
            response = make_attachment(result.body or (), name, CONTENT_TYPE)
            response.content_length = result.members["ContentLength"]
            return response

        return self._downloads.add(cookie, respond)

    def _get(self, state: RequestState, members: dict[str, Any]) -> OperationResult:
        if isinstance(self._s3, Mapping):
            raise TypeError("the service S3 must be a streaming service, not a mapping of operations")
        state.service, state.operation = "s3", load_operation_model("s3", "GetObject")
        state.members = {"Bucket": members["bucket"], "Key": members["key"]}
        validate(state.operation, state.members)
        return self._s3.invoke(state)


def _read_members(state: RequestState) -> dict[str, Any]:
    members = parse_object("objects", state.request.get_data())
    for name in ("bucket", "key"):
        if not isinstance(members.get(name), str):
            raise ServiceError("ValidationException", f"the body must have the member {name!r}, which is text")
    return members


class _Reader(io.RawIOBase):
    """The body of a result, as a file. `close` closes the body."""

    def __init__(self, result: OperationResult) -> None:
        self._body = result.body or ()
        self._blocks: Iterator[bytes] = iter(self._body)
        self._unread_bytes = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return `size` bytes, or fewer at the end."""
        while len(self._unread_bytes) < size and (block := next(self._blocks, b"")):
            self._unread_bytes += block
        content, self._unread_bytes = self._unread_bytes[:size], self._unread_bytes[size:]
        return content

    def readinto(self, buffer: Any, /) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        super().close()
        if close := getattr(self._body, "close", None):
            close()


class _LimitReachedError(Exception):
    """The limit for the uncompressed bytes of an archive is reached."""


class _LimitedReader:
    """Reads at most MAX_ARCHIVE_BYTES of a file. The next read raises _LimitReachedError."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._remaining_bytes = MAX_ARCHIVE_BYTES

    def read(self, size: int) -> bytes:
        if self._remaining_bytes <= 0:
            raise _LimitReachedError
        content: bytes = self._file.read(min(size, self._remaining_bytes))
        self._remaining_bytes -= len(content)
        return content


def _list_archive_members(file: io.BufferedReader) -> tuple[list[dict[str, Any]], bool]:
    """Return the first members of an archive, and whether these are all its members."""
    is_compressed = file.peek(2)[:2] == b"\x1f\x8b"
    # The type is Any: tarfile's parameter has a type with more methods, but in this mode, tarfile calls only `read`.
    content: Any = _LimitedReader(gzip.GzipFile(fileobj=file) if is_compressed else file)
    members: list[dict[str, Any]] = []
    try:
        with tarfile.open(fileobj=content, mode="r|") as archive:
            # members are added one by one, so that the list keeps them after a _LimitReachedError
            for member in islice(archive, MAX_ARCHIVE_MEMBERS + 1):
                members += [{"name": member.name, "size": member.size, "type": _describe_type(member)}]
    except _LimitReachedError:
        return members, False
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ServiceError(
            "ValidationException", f"the object is not a tar archive, or it is damaged: {error}"
        ) from None
    return members[:MAX_ARCHIVE_MEMBERS], len(members) <= MAX_ARCHIVE_MEMBERS


def _describe_type(member: tarfile.TarInfo) -> str:
    if member.isfile():
        return "file"
    return "folder" if member.isdir() else "link or other"
