"""Copies of objects: CopyObject, and the sources of UploadPartCopy."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote_to_bytes

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.results import OperationResult
from microjobs_orchestrator.local.s3 import conditions
from microjobs_orchestrator.local.s3.byte_ranges import FileBody, Span, parse_range, write_blocks
from microjobs_orchestrator.local.s3.call import Call, Operation
from microjobs_orchestrator.local.s3.checksums import encode_digests, make_digests
from microjobs_orchestrator.local.s3.details import Details
from microjobs_orchestrator.local.s3.objects import make_checksum_members, make_details

_COMPLETE_RANGE = re.compile("bytes=[0-9]+-[0-9]+")


@contextmanager
def open_source(call: Call) -> Iterator[tuple[Iterable[bytes], Details]]:
    """Open the source of a copy. Yield the blocks of the range to copy, and the details.

    Raises ServiceError: InvalidArgument for an invalid CopySource or CopySourceRange, NotImplemented if CopySource has
    a version, NoSuchBucket, NoSuchKey, PreconditionFailed or InvalidRange.
    """
    source = call.store.open(*_parse_source(call))
    with source.file as file:
        conditions.check_read(call.members, source.stored_object, source.details, "CopySource")
        yield FileBody(file, _find_span(call.members.get("CopySourceRange"), source.stored_object.size)), source.details


def _find_span(text: str | None, size: int) -> Span:
    """Return the range to copy. Without a CopySourceRange, it is the whole object. As on AWS, a CopySourceRange names a
    first and a last byte, and both must exist."""
    if text is None:
        return Span(0, size)
    span = parse_range(text, size) if _COMPLETE_RANGE.fullmatch(text) else None
    if span is None or not text.endswith(f"-{span.start + span.length - 1}"):
        message = f"CopySourceRange {text!r} must be bytes=FIRST-LAST, with positions below {size}, the object's size."
        raise ServiceError("InvalidArgument", message)
    return span


def _parse_source(call: Call) -> tuple[str, str]:
    text, _, version = call.members["CopySource"].partition("?")
    if version not in ("", "versionId=null"):
        message = f"Version {version!r} cannot be copied: the local server keeps no versions."
        raise ServiceError("NotImplemented", message, 501)
    try:
        bucket, _, key = unquote_to_bytes(text.encode("latin-1")).decode().removeprefix("/").partition("/")
    except ValueError:
        bucket = key = ""
    if not bucket or not key:
        message = f"Copy Source must mention the source bucket and key: sourcebucket/sourcekey, not {text!r}."
        raise ServiceError("InvalidArgument", message)
    return bucket, key


def write_copy(blocks: Iterable[bytes], path: Path, algorithm: str) -> Details:
    """Write blocks to a new file. Return details with the MD5 as ETag, and the checksum of the algorithm, if any."""
    md5, digests = hashlib.md5(usedforsecurity=False), make_digests(algorithm)
    with path.open("xb") as file:
        write_blocks(blocks, file, [md5, *digests.values()])
    return Details(md5.hexdigest(), checksums=encode_digests(digests))


def copy_object(call: Call) -> OperationResult:
    call.store.check_writable(call.bucket, call.key)
    _refuse_copy_without_change(call)
    condition = conditions.make_write_condition(call.members)
    with open_source(call) as (blocks, source_details), call.store.new_file() as path:
        algorithm = call.members.get("ChecksumAlgorithm") or next(iter(source_details.checksums), "")
        content_details = write_copy(blocks, path, algorithm)
        merged_details = _merge_details(call, source_details)
        details = replace(merged_details, etag=content_details.etag, checksums=content_details.checksums)
        stored_object = call.store.put(call.bucket, call.key, path, details, condition)
    result = {
        "ETag": f'"{details.etag}"',
        "LastModified": stored_object.modification_time,
        **make_checksum_members(details),
    }
    return OperationResult({"CopyObjectResult": result})


def _refuse_copy_without_change(call: Call) -> None:
    replaces_details = "REPLACE" in (call.members.get("MetadataDirective"), call.members.get("TaggingDirective"))
    if not replaces_details and _parse_source(call) == (call.bucket, call.key):
        message = "This copy request is illegal because it is trying to copy an object to itself without changing it."
        raise ServiceError("InvalidRequest", message)


def _merge_details(call: Call, source_details: Details) -> Details:
    request_details = make_details(call.members)
    metadata_source = request_details if call.members.get("MetadataDirective") == "REPLACE" else source_details
    tags = request_details.tags if call.members.get("TaggingDirective") == "REPLACE" else source_details.tags
    return Details(headers=metadata_source.headers, metadata=metadata_source.metadata, tags=tags)


OPERATIONS: Mapping[str, Operation] = {"CopyObject": copy_object}
