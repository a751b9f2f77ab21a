"""The details of an object, which its file does not contain: content type, user metadata, ETag, checksums."""

import hashlib
import json
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from io import BufferedIOBase, RawIOBase

BLOCK_BYTES = 256 << 10
"""Bytes that are read or written in one call."""

DEFAULT_CONTENT_TYPE = "binary/octet-stream"


@dataclass(frozen=True)
class Details:
    """The details of an object, or of a multipart upload that will become an object."""

    etag: str = ""
    """The ETag without quotes: MD5 in hex, followed by `-N` after an upload in N parts."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """HTTP headers, under the names of the members in S3's API: ContentType, CacheControl, Expires …"""
    metadata: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)
    """Checksums in base64 by algorithm, such as CRC32."""
    checksum_type: str = "FULL_OBJECT"
    tags: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[int, ...] = ()
    """The sizes of the parts of a multipart upload, in bytes."""

    def to_json(self) -> str:
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> "Details":
        values = json.loads(text)
        return cls(**{**values, "parts": tuple(values["parts"])})


def guess_details(key: str, file: RawIOBase | BufferedIOBase) -> Details:
    """Return the details of an object without stored details, such as a file that a user copied into a bucket.

    Its content and its key determine the details.
    """
    file.seek(0)
    digest = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False))
    content_type = mimetypes.guess_type(key)[0] or DEFAULT_CONTENT_TYPE
    return Details(digest.hexdigest(), {"ContentType": content_type})
