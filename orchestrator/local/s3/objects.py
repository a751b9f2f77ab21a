"""Operations on single objects."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.results import OperationResult
from microjobs_orchestrator.local.s3 import conditions
from microjobs_orchestrator.local.s3.body import receive
from microjobs_orchestrator.local.s3.byte_ranges import FileBody, Span, find_part_span, parse_range
from microjobs_orchestrator.local.s3.call import Call, Operation
from microjobs_orchestrator.local.s3.details import DEFAULT_CONTENT_TYPE, Details
from microjobs_orchestrator.local.s3.reader import StoredObject

MAX_METADATA_BYTES = 2048
"""Limit for the total length of the names and values of user metadata, as on AWS."""

OBJECT_HEADERS = frozenset(
    {"CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType", "Expires"}
)
"""Headers that are stored with an object and returned with it."""

_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
_HEADERS_BY_OVERRIDE = {f"Response{name}": name for name in OBJECT_HEADERS}
"""Headers by the member of a request that overrides them, such as `ResponseExpires`."""


def make_details(members: Mapping[str, Any]) -> Details:
    """Return the details of the object that a request creates. Raises ServiceError MetadataTooLarge, or the errors of
    `check_tags`."""
    headers = {name: members[name] for name in OBJECT_HEADERS if name in members}
    headers.setdefault("ContentType", DEFAULT_CONTENT_TYPE)
    encodings = headers.pop("ContentEncoding", "").split(",")
    if object_encodings := [item for item in encodings if item.strip() not in ("", "aws-chunked")]:
        headers["ContentEncoding"] = ",".join(object_encodings)
    metadata = members.get("Metadata", {})
    if sum(len(name) + len(value) for name, value in metadata.items()) > MAX_METADATA_BYTES:
        message = f"Your metadata headers exceed the maximum allowed metadata size of {MAX_METADATA_BYTES} bytes."
        raise ServiceError("MetadataTooLarge", message)
    tags = parse_qsl(members.get("Tagging", ""), keep_blank_values=True)
    return Details(headers=headers, metadata=metadata, tags=check_tags(tags))


def check_tags(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Return the values of an object's tags, by key.

    Raises ServiceError InvalidTag, or BadRequest for more than ten tags.
    """
    tags = dict(pairs)
    if len(tags) < len(pairs) or any(not 1 <= len(key) <= 128 or len(value) > 256 for key, value in pairs):
        message = (
            f"The tags {pairs!r} are not valid: use each key once; keys have 1 to 128 characters, values at most 256."
        )
        raise ServiceError("InvalidTag", message)
    if len(tags) > 10:
        raise ServiceError("BadRequest", f"Object tags cannot be greater than 10, but there are {len(tags)}.")
    return tags


def make_checksum_members(details: Details) -> dict[str, str]:
    members = {f"Checksum{algorithm}": value for algorithm, value in details.checksums.items()}
    return members | ({"ChecksumType": details.checksum_type} if members else {})


def put_object(call: Call) -> OperationResult:
    call.store.check_writable(call.bucket, call.key)
    details, condition = make_details(call.members), conditions.make_write_condition(call.members)
    with call.store.new_file() as path:
        with path.open("xb") as file:
            content_details = receive(call.body, file)
        details = replace(details, etag=content_details.etag, checksums=content_details.checksums)
        call.store.put(call.bucket, call.key, path, details, condition)
    return OperationResult({"ETag": f'"{details.etag}"', **make_checksum_members(details)})


def get_object(call: Call) -> OperationResult:
    opened_object = call.store.open(call.bucket, call.key)
    try:
        result, span = _describe(call, opened_object.stored_object, opened_object.details)
        return replace(result, body=FileBody(opened_object.file, span))
    except BaseException:
        opened_object.file.close()
        raise


def head_object(call: Call) -> OperationResult:
    result, _ = _describe(call, *call.store.head(call.bucket, call.key))
    return replace(result, body=())


def _describe(call: Call, stored_object: StoredObject, details: Details) -> tuple[OperationResult, Span]:
    members, full_span = call.members, Span(0, stored_object.size)
    conditions.check_read(members, stored_object, details)
    span = _find_span(members, stored_object.size, details)
    response_members = {
        **details.headers,
        **_find_overrides(members),
        "AcceptRanges": "bytes",
        "ContentLength": (span or full_span).length,
        "ETag": f'"{details.etag}"',
        "LastModified": stored_object.modification_time,
        "Metadata": details.metadata,
        "TagCount": len(details.tags) or None,
        "ContentRange": span.format_content_range(stored_object.size) if span else None,
        "PartsCount": len(details.parts) if "PartNumber" in members and details.parts else None,
    }
    # a range has no checksum: checksums cover the whole object
    if members.get("ChecksumMode", "").upper() == "ENABLED" and span is None:
        response_members |= make_checksum_members(details)
    return OperationResult(response_members, 206 if span else 200), span or full_span


def _find_overrides(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers that the request overrides. Raises ServiceError InvalidArgument for an invalid value."""
    headers = {name: members[override] for override, name in _HEADERS_BY_OVERRIDE.items() if override in members}
    for name, value in headers.items():
        if not _HEADER_VALUE.fullmatch(value):
            message = (
                f"{name} is {value!r}: header values may contain only ISO-8859-1 characters, and no control characters."
            )
            raise ServiceError("InvalidArgument", message)
    return headers


def _find_span(members: Mapping[str, Any], size: int, details: Details) -> Span | None:
    """Return the bytes that PartNumber or Range selects; None for the whole object."""
    if "PartNumber" not in members:
        return parse_range(members.get("Range"), size)
    if "Range" in members:
        raise ServiceError("InvalidRequest", "Cannot specify both Range header and partNumber query parameter.")
    span = find_part_span(details.parts, size, members["PartNumber"])
    return span if span.length else None


def delete_object(call: Call) -> OperationResult:
    call.store.delete(call.bucket, call.key, conditions.make_write_condition(call.members))
    return OperationResult()


def delete_objects(call: Call) -> OperationResult:
    request = call.members["Delete"]
    if len(request["Objects"]) > 1000:
        raise ServiceError("MalformedXML", "At most 1000 objects can be deleted in one request.")
    deleted, errors = [], []
    for item in request["Objects"]:
        condition = conditions.make_write_condition({"IfMatch": item["ETag"]} if "ETag" in item else {})
        try:
            call.store.delete(call.bucket, item["Key"], condition)
            deleted.append({"Key": item["Key"]})
        except ServiceError as error:
            errors.append({"Key": item["Key"], "Code": error.code, "Message": error.message})
    return OperationResult({"Deleted": [] if request.get("Quiet") else deleted, "Errors": errors})


def get_object_attributes(call: Call) -> OperationResult:
    stored_object, details = call.store.head(call.bucket, call.key)
    attributes = {
        "ETag": details.etag,
        "Checksum": make_checksum_members(details) or None,
        "ObjectParts": {"TotalPartsCount": len(details.parts)} if details.parts else None,
        "StorageClass": "STANDARD",
        "ObjectSize": stored_object.size,
    }
    members = {name: attributes[name] for name in call.members["ObjectAttributes"]}
    return OperationResult({**members, "LastModified": stored_object.modification_time})


def get_object_tagging(call: Call) -> OperationResult:
    _, details = call.store.head(call.bucket, call.key)
    return OperationResult({"TagSet": [{"Key": key, "Value": value} for key, value in details.tags.items()]})


def put_object_tagging(call: Call) -> OperationResult:
    pairs = [(tag["Key"], tag["Value"]) for tag in call.members["Tagging"]["TagSet"]]
    return _set_tags(call, check_tags(pairs))


def delete_object_tagging(call: Call) -> OperationResult:
    return _set_tags(call, {})


def _set_tags(call: Call, tags: Mapping[str, str]) -> OperationResult:
    stored_object, details = call.store.head(call.bucket, call.key)
    call.store.database.store_details(stored_object.version, replace(details, tags=tags))
    return OperationResult()


OPERATIONS: Mapping[str, Operation] = {
    "PutObject": put_object,
    "GetObject": get_object,
    "HeadObject": head_object,
    "DeleteObject": delete_object,
    "DeleteObjects": delete_objects,
    "GetObjectAttributes": get_object_attributes,
    "GetObjectTagging": get_object_tagging,
    "PutObjectTagging": put_object_tagging,
    "DeleteObjectTagging": delete_object_tagging,
}
