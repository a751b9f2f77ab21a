"""Copies of objects: CopyObject, and the sources of UploadPartCopy."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote_to_bytes

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.answer import Answer
from microjobs_orchestrator.local.s3 import conditions
from microjobs_orchestrator.local.s3.call import Call, Operation
from microjobs_orchestrator.local.s3.checksums import encode_all, make_digests
from microjobs_orchestrator.local.s3.content import FileBody, Span, parse_range, write_blocks
from microjobs_orchestrator.local.s3.details import Details
from microjobs_orchestrator.local.s3.objects import make_checksum_members, make_details


@contextmanager
def open_source(call: Call) -> Iterator[tuple[Iterable[bytes], Details]]:
    """Open the source of a copy. Yield the blocks of the range to copy, and the details.

    Raises ServiceError NoSuchKey, PreconditionFailed, InvalidRange, or InvalidArgument for an invalid CopySource.
    """
    opened = call.store.open(*_parse_source(call))
    with opened.file as file:
        conditions.check_read(call.members, opened.stored, opened.details, "CopySource")
        span = parse_range(call.members.get("CopySourceRange"), opened.stored.size)
        yield FileBody(file, span or Span(0, opened.stored.size)), opened.details


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
    return Details(md5.hexdigest(), checksums=encode_all(digests))


def copy_object(call: Call) -> Answer:
    call.store.check_writable(call.bucket, call.key)
    _check_not_itself(call)
    condition = conditions.make_write_condition(call.members)
    with open_source(call) as (blocks, source), call.store.new_file() as path:
        copied = write_copy(blocks, path, call.members.get("ChecksumAlgorithm") or next(iter(source.checksums), ""))
        details = replace(_merge_details(call, source), etag=copied.etag, checksums=copied.checksums)
        stored = call.store.put(call.bucket, call.key, path, details, condition)
    result = {"ETag": f'"{details.etag}"', "LastModified": stored.modified, **make_checksum_members(details)}
    return Answer({"CopyObjectResult": result})


def _check_not_itself(call: Call) -> None:
    changes = "REPLACE" in (call.members.get("MetadataDirective"), call.members.get("TaggingDirective"))
    if not changes and _parse_source(call) == (call.bucket, call.key):
        message = "This copy request is illegal because it is trying to copy an object to itself without changing it."
        raise ServiceError("InvalidRequest", message)


def _merge_details(call: Call, source: Details) -> Details:
    new = make_details(call.members)
    metadata = new if call.members.get("MetadataDirective") == "REPLACE" else source
    tags = new.tags if call.members.get("TaggingDirective") == "REPLACE" else source.tags
    return Details(headers=metadata.headers, metadata=metadata.metadata, tags=tags)


OPERATIONS: Mapping[str, Operation] = {"CopyObject": copy_object}
