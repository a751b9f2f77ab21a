"""Operations that list objects, in pages."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.answer import Answer
from microjobs_orchestrator.local.s3.call import OWNER, Call, Operation
from microjobs_orchestrator.local.s3.reader import StoredObject
from microjobs_orchestrator.local.s3.walk import PREFIX_END

NULL_VERSION = "null"
"""The version id of objects in buckets without versioning."""


@dataclass
class Page:
    objects: list[StoredObject] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    last: bytes = b""
    """The position after which the next page starts."""
    last_name: str = ""
    truncated: bool = False


def list_objects(call: Call) -> Answer:
    marker = call.members.get("Marker", "")
    page = _page(call, _after_marker(call, marker))
    members = _members(call, page) | {"Marker": call.encode(marker)}
    members["Contents"] = [{**content, "Owner": OWNER} for content in _contents(call, page)]
    if page.truncated:
        members["NextMarker"] = call.encode(page.last_name)
    return Answer(members)


def list_objects_v2(call: Call) -> Answer:
    token, start = call.members.get("ContinuationToken"), call.members.get("StartAfter", "")
    page = _page(call, start.encode() if token is None else _read_token(token))
    owner = {"Owner": OWNER} if call.members.get("FetchOwner") else {}
    contents = [content | owner for content in _contents(call, page)]
    members = _members(call, page) | {"Contents": contents, "KeyCount": len(contents) + len(page.prefixes)}
    members |= {"ContinuationToken": token, "StartAfter": call.encode(start) if start else None}
    if page.truncated:
        members["NextContinuationToken"] = base64.urlsafe_b64encode(page.last).decode()
    return Answer(members)


def list_object_versions(call: Call) -> Answer:
    """List the only version of each object."""
    marker = call.members.get("KeyMarker", "")
    if call.members.get("VersionIdMarker", NULL_VERSION) != NULL_VERSION:
        raise ServiceError("InvalidArgument", f"VersionIdMarker must be {NULL_VERSION!r}: versions are not kept.")
    page = _page(call, _after_marker(call, marker))
    only = {"VersionId": NULL_VERSION, "IsLatest": True, "Owner": OWNER}
    members = _members(call, page) | {"Versions": [{**content, **only} for content in _contents(call, page)]}
    members["KeyMarker"] = call.encode(marker)
    if page.truncated:
        members |= {"NextKeyMarker": call.encode(page.last_name), "NextVersionIdMarker": NULL_VERSION}
    return Answer(members)


def _page(call: Call, after: bytes) -> Page:
    page, limit = Page(), call.limit("MaxKeys")
    if not limit:
        return page
    for found in _grouped(call, after):
        if len(page.objects) + len(page.prefixes) == limit:
            page.truncated = True
            break
        if isinstance(found, str):
            page.prefixes.append(found)
            page.last_name, page.last = found, found.encode() + PREFIX_END
        else:
            page.objects.append(found)
            page.last_name, page.last = found.key, found.key.encode()
    return page


def _grouped(call: Call, after: bytes) -> Iterator[StoredObject | str]:
    """Yield objects, and each common prefix once.

    If the delimiter is a slash, a common prefix is a folder, which is not read. For other delimiters, the walk starts
    again after each common prefix, so that keys with that prefix are not read.
    """
    prefix, delimiter = call.members.get("Prefix", ""), call.members.get("Delimiter", "")
    next_after: bytes | None = after
    while next_after is not None:
        walk = call.store.walk(call.bucket, prefix, next_after, fold=delimiter == "/")
        next_after = None
        for found in walk:
            common = found if isinstance(found, str) else _common_prefix(found.key, prefix, delimiter)
            yield found if common is None else common
            if common is not None and not isinstance(found, str):
                next_after = common.encode() + PREFIX_END
                break


def _common_prefix(key: str, prefix: str, delimiter: str) -> str | None:
    head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
    return prefix + head + found if found else None


def _after_marker(call: Call, marker: str) -> bytes:
    """Return the position after a marker. A marker that is a common prefix stands for all keys with that prefix."""
    prefix, delimiter = call.members.get("Prefix", ""), call.members.get("Delimiter", "")
    is_common = marker.startswith(prefix) and _common_prefix(marker, prefix, delimiter) == marker
    return marker.encode() + (PREFIX_END if is_common else b"")


def _read_token(token: str) -> bytes:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        message = f"The continuation token {token!r} is not from this server."
        raise ServiceError("InvalidArgument", message) from None


def _contents(call: Call, page: Page) -> list[dict[str, Any]]:
    """Describe a page's objects as they are now. Objects that were deleted meanwhile are left out."""
    contents = []
    for found in page.objects:
        described = call.store.describe(found)
        if described is None:
            continue
        stored, details = described
        content = {
            "Key": call.encode(stored.key),
            "LastModified": stored.modified,
            "ETag": f'"{details.etag}"',
            "Size": stored.size,
            "StorageClass": "STANDARD",
        }
        if details.checksums:
            content |= {"ChecksumAlgorithm": list(details.checksums), "ChecksumType": details.checksum_type}
        contents.append(content)
    return contents


def _members(call: Call, page: Page) -> dict[str, Any]:
    delimiter = call.members.get("Delimiter")
    return {
        "Name": call.bucket,
        "Prefix": call.encode(call.members.get("Prefix", "")),
        "Delimiter": None if delimiter is None else call.encode(delimiter),
        "MaxKeys": call.limit("MaxKeys"),
        "EncodingType": call.members.get("EncodingType"),
        "IsTruncated": page.truncated,
        "CommonPrefixes": [{"Prefix": call.encode(prefix)} for prefix in page.prefixes],
    }


OPERATIONS: Mapping[str, Operation] = {
    "ListObjects": list_objects,
    "ListObjectsV2": list_objects_v2,
    "ListObjectVersions": list_object_versions,
}
