"""What an object's file does not say itself: content type, user metadata, ETag, checksums."""

import hashlib
import json
import mimetypes
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import BinaryIO

BLOCK_BYTES = 256 << 10
"""Bytes that are read and written at once."""

DEFAULT_CONTENT_TYPE = "binary/octet-stream"


@dataclass(frozen=True)
class Details:
    """Of one object, or of an upload that will be one."""

    etag: str = ""
    """Without its quotes: MD5 in hex, `-N` behind it after an upload in N parts."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Under the names of S3's members: ContentType, CacheControl, Expires …"""
    metadata: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)
    """By algorithm, such as CRC32, in base64."""
    checksum_type: str = "FULL_OBJECT"
    tags: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[int, ...] = ()
    """Sizes in bytes of the parts that the object was uploaded in."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Details":
        values = json.loads(text)
        return cls(**{**values, "parts": tuple(values["parts"])})


def guess_details(key: str, file: BinaryIO) -> Details:
    """Of a file that somebody dropped in: the MD5 of what it holds from its start, the type from its name."""
    file.seek(0)
    digest = hashlib.md5(usedforsecurity=False)
    while block := file.read(BLOCK_BYTES):
        digest.update(block)
    content_type = mimetypes.guess_type(key)[0] or DEFAULT_CONTENT_TYPE
    return Details(digest.hexdigest(), {"ContentType": content_type})
