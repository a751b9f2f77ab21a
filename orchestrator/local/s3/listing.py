"""Operations that list objects, in pages."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.results import OperationResult
from microjobs_orchestrator.local.s3.call import OWNER, Call, Operation
from microjobs_orchestrator.local.s3.reader import StoredObject
from microjobs_orchestrator.local.s3.walk import PREFIX_END

NULL_VERSION = "null"
"""The version id of objects in buckets without versioning."""


@dataclass(frozen=True)
class Page:
    """One page of a listing."""

    objects: Sequence[StoredObject]
    prefixes: Sequence[str]
    next_marker: str = ""
    """The last key or common prefix, if there is another page."""
    next_start_after: bytes | None = None
    """The position after which the next page starts; None if there is no other page."""


def list_objects(call: Call) -> OperationResult:
    marker = call.members.get("Marker", "")
    page = _read_page(call, _find_position_after(call, marker))
    members = _make_members(call, page) | {"Marker": call.encode_key(marker)}
    members["Contents"] = [{**content, "Owner": OWNER} for content in _describe_objects(call, page)]
    if page.next_start_after is not None:
        members["NextMarker"] = call.encode_key(page.next_marker)
    return OperationResult(members)


def list_objects_v2(call: Call) -> OperationResult:
    token, start = call.members.get("ContinuationToken"), call.members.get("StartAfter", "")
    page = _read_page(call, start.encode() if token is None else _parse_token(token))
    owner = {"Owner": OWNER} if call.members.get("FetchOwner") else {}
    contents = [content | owner for content in _describe_objects(call, page)]
    members = _make_members(call, page) | {"Contents": contents, "KeyCount": len(contents) + len(page.prefixes)}
    members |= {"ContinuationToken": token, "StartAfter": call.encode_key(start) if start else None}
    if page.next_start_after is not None:
        members["NextContinuationToken"] = base64.urlsafe_b64encode(page.next_start_after).decode()
    return OperationResult(members)


def list_object_versions(call: Call) -> OperationResult:
    """List the only version of each object."""
    marker = call.members.get("KeyMarker", "")
    if call.members.get("VersionIdMarker", NULL_VERSION) != NULL_VERSION:
        raise ServiceError("InvalidArgument", f"VersionIdMarker must be {NULL_VERSION!r}: versions are not kept.")
    page = _read_page(call, _find_position_after(call, marker))
    version = {"VersionId": NULL_VERSION, "IsLatest": True, "Owner": OWNER}
    members = _make_members(call, page) | {
        "Versions": [{**content, **version} for content in _describe_objects(call, page)]
    }
    members["KeyMarker"] = call.encode_key(marker)
    if page.next_start_after is not None:
        members |= {"NextKeyMarker": call.encode_key(page.next_marker), "NextVersionIdMarker": NULL_VERSION}
    return OperationResult(members)


def _read_page(call: Call, start_after: bytes) -> Page:
    limit = call.get_page_limit("MaxKeys")
    entries = [*islice(_list_objects_and_prefixes(call, start_after), limit + 1)] if limit else []
    objects = [item for item in entries[:limit] if isinstance(item, StoredObject)]
    prefixes = [item for item in entries[:limit] if isinstance(item, str)]
    if len(entries) <= limit:
        return Page(objects, prefixes)
    last_entry = entries[limit - 1]
    if isinstance(last_entry, str):
        return Page(objects, prefixes, last_entry, last_entry.encode() + PREFIX_END)
    return Page(objects, prefixes, last_entry.key, last_entry.key.encode())


def _list_objects_and_prefixes(call: Call, start_after: bytes) -> Iterator[StoredObject | str]:
    """Yield objects, and each common prefix once.

    If the delimiter is a slash, a common prefix is a folder, and the walk only checks that the folder contains a key.
    For other delimiters, the walk restarts after each common prefix, so that it skips the other keys with that prefix.
    """
    prefix, delimiter = call.members.get("Prefix", ""), call.members.get("Delimiter", "")
    position: bytes | None = start_after
    while position is not None:
        walk = call.store.walk(call.bucket, prefix, position, groups_by_folder=delimiter == "/")
        position = None
        for entry in walk:
            common_prefix = entry if isinstance(entry, str) else _find_common_prefix(entry.key, prefix, delimiter)
            yield entry if common_prefix is None else common_prefix
            if common_prefix is not None and not isinstance(entry, str):
                position = common_prefix.encode() + PREFIX_END
                break


def _find_common_prefix(key: str, prefix: str, delimiter: str) -> str | None:
    head, found_delimiter, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
    return prefix + head + found_delimiter if found_delimiter else None


def _find_position_after(call: Call, marker: str) -> bytes:
    """Return the position after a marker. A marker that is a common prefix stands for all keys with that prefix."""
    prefix, delimiter = call.members.get("Prefix", ""), call.members.get("Delimiter", "")
    is_common_prefix = marker.startswith(prefix) and _find_common_prefix(marker, prefix, delimiter) == marker
    return marker.encode() + (PREFIX_END if is_common_prefix else b"")


def _parse_token(token: str) -> bytes:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True)
    except ValueError:
        raise ServiceError("InvalidArgument", f"The continuation token {token!r} is not from this server.") from None


def _describe_objects(call: Call, page: Page) -> list[dict[str, Any]]:
    """Describe a page's objects, without objects that were deleted after they were listed."""
    contents = []
    for entry in page.objects:
        object_and_details = call.store.describe(entry)
        if object_and_details is None:
            continue
        stored_object, details = object_and_details
        content = {
            "Key": call.encode_key(stored_object.key),
            "LastModified": stored_object.modification_time,
            "ETag": f'"{details.etag}"',
            "Size": stored_object.size,
            "StorageClass": "STANDARD",
        }
        if details.checksums:
            content |= {"ChecksumAlgorithm": list(details.checksums), "ChecksumType": details.checksum_type}
        contents.append(content)
    return contents


def _make_members(call: Call, page: Page) -> dict[str, Any]:
    delimiter = call.members.get("Delimiter")
    return {
        "Name": call.bucket,
        "Prefix": call.encode_key(call.members.get("Prefix", "")),
        "Delimiter": None if delimiter is None else call.encode_key(delimiter),
        "MaxKeys": call.get_page_limit("MaxKeys"),
        "EncodingType": call.members.get("EncodingType"),
        "IsTruncated": page.next_start_after is not None,
        "CommonPrefixes": [{"Prefix": call.encode_key(prefix)} for prefix in page.prefixes],
    }


OPERATIONS: Mapping[str, Operation] = {
    "ListObjects": list_objects,
    "ListObjectsV2": list_objects_v2,
    "ListObjectVersions": list_object_versions,
}
