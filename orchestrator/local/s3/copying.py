"""Copies of objects: CopyObject, and the sources of UploadPartCopy."""

import hashlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import unquote_to_bytes

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.answer import Answer
from microjobs_orchestrator.local.s3 import conditions
from microjobs_orchestrator.local.s3.call import Call, Operation
from microjobs_orchestrator.local.s3.checksums import ALGORITHMS, encode
from microjobs_orchestrator.local.s3.content import FileBody, Span, copy, read_range
from microjobs_orchestrator.local.s3.details import Details
from microjobs_orchestrator.local.s3.objects import checksum_members, details_of
from microjobs_orchestrator.local.s3.reader import Opened


def open_source(call: Call) -> tuple[Opened, Span]:
    """Open the source of a copy, if its conditions hold. The caller closes the file.

    Returns:
        The source, and the range to copy.

    Raises:
        ServiceError: NoSuchKey, PreconditionFailed, InvalidRange, or InvalidArgument for an invalid CopySource.
    """
    bucket, key = _source(call)
    opened = call.store.open(bucket, key)
    try:
        conditions.check_source(call.members, opened)
        span = read_range(call.members.get("CopySourceRange"), opened.stored.size)
    except BaseException:
        opened.file.close()
        raise
    return opened, span or Span(0, opened.stored.size)


def _source(call: Call) -> tuple[str, str]:
    text, _, version = call.members["CopySource"].partition("?")
    if version not in ("", "versionId=null"):
        message = f"Version {version!r} cannot be copied: the local server keeps no versions."
        raise ServiceError("NotImplemented", message, 501)
    try:
        bucket, _, key = unquote_to_bytes(text.encode("latin-1")).decode().removeprefix("/").partition("/")
    except ValueError:
        bucket = key = ""
    if not bucket or not key:
        message = f"Copy Source must mention the source bucket and key: sourcebucket/sourcekey, and is {text!r}."
        raise ServiceError("InvalidArgument", message)
    return bucket, key


def copy_object(call: Call) -> Answer:
    call.store.check(call.bucket, call.key)
    _check_not_itself(call)
    condition = conditions.writing(call.members)
    opened, span = open_source(call)
    with closing(FileBody(opened.file, span)) as blocks, call.store.incoming() as path:
        md5 = hashlib.md5(usedforsecurity=False)
        algorithm = _algorithm(call, opened.details)
        digest = ALGORITHMS[algorithm]() if algorithm else None
        with path.open("xb") as file:
            copy(blocks, file, [md5] if digest is None else [md5, digest])
        checksums = {algorithm: encode(digest)} if digest else {}
        details = replace(_details(call, opened.details), etag=md5.hexdigest(), checksums=checksums)
        stored = call.store.adopt(call.bucket, call.key, path, details, condition)
    modified = datetime.fromtimestamp(stored.modified, UTC)
    result = {"ETag": f'"{details.etag}"', "LastModified": modified, **checksum_members(details)}
    return Answer({"CopyObjectResult": result})


def _check_not_itself(call: Call) -> None:
    changes = "REPLACE" in (call.members.get("MetadataDirective"), call.members.get("TaggingDirective"))
    if not changes and _source(call) == (call.bucket, call.key):
        message = "This copy request is illegal because it is trying to copy an object to itself without changing it."
        raise ServiceError("InvalidRequest", message)


def _algorithm(call: Call, source: Details) -> str:
    """Return the checksum algorithm of the copy: the requested one, else the source's."""
    algorithm: str = call.members.get("ChecksumAlgorithm") or next(iter(source.checksums), "")
    if algorithm and algorithm not in ALGORITHMS:
        message = f"Checksums {algorithm} are not supported; use one of {', '.join(ALGORITHMS)}."
        raise ServiceError("NotImplemented", message, 501)
    return algorithm


def _details(call: Call, source: Details) -> Details:
    own = details_of(call.members)
    kept = own if call.members.get("MetadataDirective") == "REPLACE" else source
    tags = own.tags if call.members.get("TaggingDirective") == "REPLACE" else source.tags
    return Details(headers=kept.headers, metadata=kept.metadata, tags=tags)


OPERATIONS: Mapping[str, Operation] = {"CopyObject": copy_object}
