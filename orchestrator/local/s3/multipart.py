"""Operations of multipart uploads."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.answer import Answer
from microjobs_orchestrator.local.protocols.rest_xml import malformed
from microjobs_orchestrator.local.s3 import conditions
from microjobs_orchestrator.local.s3.body import receive
from microjobs_orchestrator.local.s3.call import OWNER, Call, Operation
from microjobs_orchestrator.local.s3.checksums import ALGORITHMS, COMPOSITE_ONLY, FULL_OBJECT_ONLY, composite, encode
from microjobs_orchestrator.local.s3.content import FileBody, Span, copy
from microjobs_orchestrator.local.s3.copying import open_source
from microjobs_orchestrator.local.s3.details import BLOCK_BYTES, Details
from microjobs_orchestrator.local.s3.objects import checksum_members, details_of
from microjobs_orchestrator.local.s3.uploads import MAX_PARTS, Part, Upload

MIN_PART_BYTES = 5 << 20
"""The minimum size of all parts but the last one, as on AWS."""


def create_multipart_upload(call: Call) -> Answer:
    algorithm = call.members.get("ChecksumAlgorithm", "")
    kind = call.members.get("ChecksumType") or ("FULL_OBJECT" if algorithm in FULL_OBJECT_ONLY else "COMPOSITE")
    _check_algorithm(algorithm, kind)
    details = replace(details_of(call.members), checksum_type=kind)
    upload = call.uploads.create(call.bucket, call.key, algorithm, details)
    members = {"Bucket": call.bucket, "Key": call.key, "UploadId": upload.id}
    return Answer(members | _checksum_kind(upload))


def _check_algorithm(algorithm: str, kind: str) -> None:
    if algorithm and algorithm not in ALGORITHMS:
        message = f"Checksums {algorithm} are not supported; use one of {', '.join(ALGORITHMS)}."
        raise ServiceError("NotImplemented", message, 501)
    if algorithm in (COMPOSITE_ONLY if kind == "FULL_OBJECT" else FULL_OBJECT_ONLY):
        message = f"The {kind} checksum type cannot be used with the {algorithm} checksum algorithm."
        raise ServiceError("InvalidRequest", message)


def _checksum_kind(upload: Upload) -> dict[str, str]:
    if not upload.algorithm:
        return {}
    return {"ChecksumAlgorithm": upload.algorithm, "ChecksumType": upload.details.checksum_type}


def upload_part(call: Call) -> Answer:
    upload, number = _upload(call), _number(call)
    with call.store.incoming() as path:
        with path.open("xb") as file:
            received = receive(call.body, file)
        details = _part_details(upload, Details(received.md5, checksums=received.checksums), path)
        call.uploads.put_part(upload, number, path, details)
    return Answer({"ETag": f'"{details.etag}"', **_checksums(details)})


def upload_part_copy(call: Call) -> Answer:
    upload, number = _upload(call), _number(call)
    digest = hashlib.md5(usedforsecurity=False)
    with call.store.incoming() as path:
        opened, span = open_source(call)
        with closing(FileBody(opened.file, span)) as blocks, path.open("xb") as file:
            copy(blocks, file, [digest])
        details = _part_details(upload, Details(digest.hexdigest()), path)
        part = call.uploads.put_part(upload, number, path, details)
    modified = datetime.fromtimestamp(part.modified, UTC)
    return Answer({"CopyPartResult": {"ETag": f'"{details.etag}"', "LastModified": modified, **_checksums(details)}})


def _upload(call: Call) -> Upload:
    return call.uploads.get(call.bucket, call.key, call.members["UploadId"])


def _number(call: Call) -> int:
    number: int = call.members["PartNumber"]
    if not 1 <= number <= MAX_PARTS:
        message = f"Part number must be an integer between 1 and {MAX_PARTS}, inclusive, and is {number}."
        raise ServiceError("InvalidArgument", message)
    return number


def _part_details(upload: Upload, details: Details, file: Path) -> Details:
    """Add the checksum of the upload's algorithm. It is computed if the client did not send it."""
    algorithm = upload.algorithm
    if not algorithm or algorithm in details.checksums:
        return details
    if details.checksums:
        message = f"The upload was created for {algorithm} checksums, but the part has {', '.join(details.checksums)}."
        raise ServiceError("InvalidRequest", message)
    digest = ALGORITHMS[algorithm]()
    with file.open("rb") as content:
        while block := content.read(BLOCK_BYTES):
            digest.update(block)
    return replace(details, checksums={algorithm: encode(digest)})


def _checksums(details: Details) -> dict[str, str]:
    return {f"Checksum{algorithm}": value for algorithm, value in details.checksums.items()}


def complete_multipart_upload(call: Call) -> Answer:
    upload, condition = _upload(call), conditions.writing(call.members)
    with call.uploads.exclusive(upload), call.store.incoming() as path:
        call.store.check(call.bucket, call.key)
        parts = _chosen(call, upload)
        details = _assemble(upload, parts, path)
        _check_whole(call, details)
        call.store.adopt(call.bucket, call.key, path, details, condition)
        call.uploads.forget(upload)
    location = {"Location": f"/{call.bucket}/{quote(call.key)}", "Bucket": call.bucket, "Key": call.key}
    return Answer({**location, "ETag": f'"{details.etag}"', **checksum_members(details)})


def _chosen(call: Call, upload: Upload) -> list[Part]:
    """Return the parts that the request lists. Raises ServiceError if they are not the uploaded ones."""
    wanted: Sequence[Mapping[str, Any]] = call.members.get("MultipartUpload", {}).get("Parts", ())
    if not wanted or any("PartNumber" not in part or "ETag" not in part for part in wanted):
        raise malformed("it must list at least one part, each with its PartNumber and ETag")
    if any(first["PartNumber"] >= second["PartNumber"] for first, second in pairwise(wanted)):
        raise ServiceError("InvalidPartOrder", "The list of parts was not in ascending order of their numbers.")
    uploaded = {part.number: part for part in call.uploads.parts(upload)}
    chosen = [_matching(uploaded.get(part["PartNumber"]), part) for part in wanted]
    for part in chosen[:-1]:
        if part.size < MIN_PART_BYTES:
            message = f"Part {part.number} has {part.size} bytes; all but the last need at least {MIN_PART_BYTES}."
            raise ServiceError("EntityTooSmall", message)
    return chosen


def _matching(part: Part | None, wanted: Mapping[str, Any]) -> Part:
    if part is not None:
        expected = {"ETag": part.details.etag, **_checksums(part.details)}
        listed = {name: value for name, value in wanted.items() if name != "PartNumber"}
        listed["ETag"] = listed["ETag"].strip('"')
        if all(expected.get(name) == value for name, value in listed.items()):
            return part
    message = f"Part {wanted['PartNumber']} was not uploaded, or its ETag is not {wanted['ETag']}."
    raise ServiceError("InvalidPart", message)


def _assemble(upload: Upload, parts: Sequence[Part], path: Path) -> Details:
    """Write the parts into one file; return the details of the object."""
    algorithm, full = upload.algorithm, upload.details.checksum_type == "FULL_OBJECT"
    digest = ALGORITHMS[algorithm]() if algorithm and full else None
    with path.open("xb") as file:
        for part in parts:
            with closing(FileBody(part.path.open("rb", buffering=0), Span(0, part.size))) as blocks:
                copy(blocks, file, [digest] if digest else [])
    md5 = hashlib.md5(b"".join(bytes.fromhex(part.details.etag) for part in parts), usedforsecurity=False)
    checksums = {algorithm: encode(digest)} if digest else {}
    if algorithm and not full:
        checksums = {algorithm: composite(algorithm, (part.details.checksums[algorithm] for part in parts))}
    sizes = tuple(part.size for part in parts)
    return replace(upload.details, etag=f"{md5.hexdigest()}-{len(parts)}", checksums=checksums, parts=sizes)


def _check_whole(call: Call, details: Details) -> None:
    """Check the object against the size, type and checksums in the request."""
    size = call.members.get("MpuObjectSize")
    if size is not None and size != sum(details.parts):
        message = f"x-amz-mp-object-size is {size}, but the parts have {sum(details.parts)} bytes."
        raise ServiceError("InvalidRequest", message)
    kind = call.members.get("ChecksumType", details.checksum_type)
    if kind != details.checksum_type:
        message = f"The upload was created for checksums of the type {details.checksum_type}, not {kind}."
        raise ServiceError("InvalidRequest", message)
    for name, value in _checksums(details).items():
        if call.members.get(name, value) not in (value, value.partition("-")[0]):
            raise ServiceError("BadDigest", f"The {name} you specified did not match the calculated checksum.")


def abort_multipart_upload(call: Call) -> Answer:
    call.uploads.abort(_upload(call))
    return Answer()


def list_parts(call: Call) -> Answer:
    upload, limit = _upload(call), call.limit("MaxParts")
    marker = call.members.get("PartNumberMarker", 0)
    found = call.uploads.parts(upload, marker, limit + 1)
    page = found[:limit]
    members: dict[str, Any] = {
        "Bucket": call.bucket,
        "Key": call.key,
        "UploadId": upload.id,
        "PartNumberMarker": marker,
        "NextPartNumberMarker": page[-1].number if page else marker,
        "MaxParts": limit,
        "IsTruncated": len(found) > len(page),
        "Parts": [_part(part) for part in page],
        "Initiator": OWNER,
        "Owner": OWNER,
        "StorageClass": "STANDARD",
    }
    return Answer(members | _checksum_kind(upload))


def _part(part: Part) -> dict[str, Any]:
    modified = datetime.fromtimestamp(part.modified, UTC)
    known = {"PartNumber": part.number, "LastModified": modified, "ETag": f'"{part.details.etag}"', "Size": part.size}
    return known | _checksums(part.details)


def list_multipart_uploads(call: Call) -> Answer:
    call.check_bucket()
    limit, prefix = call.limit("MaxUploads"), call.members.get("Prefix", "")
    key, upload_id = call.members.get("KeyMarker", ""), call.members.get("UploadIdMarker")
    # A marker without an id skips all uploads of its key. Ids are hexadecimal and sort before "~".
    after = (key, "~" if upload_id is None else upload_id) if key else ("", "")
    found = call.uploads.find(call.bucket, prefix, after, limit + 1)
    page = found[:limit]
    members: dict[str, Any] = {
        "Bucket": call.bucket,
        "KeyMarker": call.encode(key),
        "UploadIdMarker": upload_id or "",
        "Prefix": call.encode(prefix),
        "EncodingType": call.members.get("EncodingType"),
        "MaxUploads": limit,
        "IsTruncated": len(found) > len(page),
        "Uploads": [_described(call, upload) for upload in page],
    }
    if page:
        members |= {"NextKeyMarker": call.encode(page[-1].key), "NextUploadIdMarker": page[-1].id}
    return Answer(members)


def _described(call: Call, upload: Upload) -> dict[str, Any]:
    known = {
        "UploadId": upload.id,
        "Key": call.encode(upload.key),
        "Initiated": datetime.fromtimestamp(upload.created, UTC),
        "StorageClass": "STANDARD",
        "Owner": OWNER,
        "Initiator": OWNER,
    }
    return known | _checksum_kind(upload)


OPERATIONS: Mapping[str, Operation] = {
    "CreateMultipartUpload": create_multipart_upload,
    "UploadPart": upload_part,
    "UploadPartCopy": upload_part_copy,
    "CompleteMultipartUpload": complete_multipart_upload,
    "AbortMultipartUpload": abort_multipart_upload,
    "ListParts": list_parts,
    "ListMultipartUploads": list_multipart_uploads,
}
