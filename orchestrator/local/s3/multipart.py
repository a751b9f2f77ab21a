"""Operations of multipart uploads."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.rest_xml import make_malformed_xml_error
from microjobs_orchestrator.local.protocols.results import OperationResult
from microjobs_orchestrator.local.s3 import conditions
from microjobs_orchestrator.local.s3.body import receive
from microjobs_orchestrator.local.s3.byte_ranges import FileBody, Span, write_blocks
from microjobs_orchestrator.local.s3.call import OWNER, Call, Operation
from microjobs_orchestrator.local.s3.checksums import (
    ALGORITHMS,
    COMPOSITE_ONLY_ALGORITHMS,
    FULL_OBJECT_ONLY_ALGORITHMS,
    encode_digests,
    make_composite_checksum,
    make_digests,
)
from microjobs_orchestrator.local.s3.copying import open_source, write_copy
from microjobs_orchestrator.local.s3.details import Details
from microjobs_orchestrator.local.s3.objects import make_checksum_members, make_details
from microjobs_orchestrator.local.s3.uploads import MAX_PARTS, Part, Upload

MIN_PART_BYTES = 5 << 20
"""The minimum size of all parts except the last part, as on AWS."""


def create_multipart_upload(call: Call) -> OperationResult:
    algorithm = call.members.get("ChecksumAlgorithm", "")
    checksum_type = call.members.get("ChecksumType") or (
        "FULL_OBJECT" if algorithm in FULL_OBJECT_ONLY_ALGORITHMS else "COMPOSITE"
    )
    make_digests(algorithm)  # this call refuses unsupported algorithms
    if algorithm in (COMPOSITE_ONLY_ALGORITHMS if checksum_type == "FULL_OBJECT" else FULL_OBJECT_ONLY_ALGORITHMS):
        message = f"The {checksum_type} checksum type cannot be used with the {algorithm} checksum algorithm."
        raise ServiceError("InvalidRequest", message)
    upload = call.uploads.create(
        call.bucket, call.key, algorithm, replace(make_details(call.members), checksum_type=checksum_type)
    )
    return OperationResult(
        {"Bucket": call.bucket, "Key": call.key, "UploadId": upload.id, **_make_checksum_type_members(upload)}
    )


def _make_checksum_type_members(upload: Upload) -> dict[str, str]:
    if not upload.algorithm:
        return {}
    return {"ChecksumAlgorithm": upload.algorithm, "ChecksumType": upload.details.checksum_type}


def upload_part(call: Call) -> OperationResult:
    upload, number = _get_upload(call), _get_part_number(call)
    with call.store.new_file() as path:
        with path.open("xb") as file:
            details = receive(call.body, file, algorithm=upload.algorithm)
        part = _put_part(call, upload, number, path, details)
    return OperationResult(_make_part_members(part))


def upload_part_copy(call: Call) -> OperationResult:
    upload, number = _get_upload(call), _get_part_number(call)
    with call.store.new_file() as path:
        with open_source(call) as (blocks, _):
            details = write_copy(blocks, path, upload.algorithm)
        part = _put_part(call, upload, number, path, details)
    return OperationResult({"CopyPartResult": {"LastModified": part.modification_time, **_make_part_members(part)}})


def _get_upload(call: Call) -> Upload:
    return call.uploads.get(call.bucket, call.key, call.members["UploadId"])


def _get_part_number(call: Call) -> int:
    number: int = call.members["PartNumber"]
    if not 1 <= number <= MAX_PARTS:
        message = f"Part number must be an integer between 1 and {MAX_PARTS}, inclusive, and is {number}."
        raise ServiceError("InvalidArgument", message)
    return number


def _put_part(call: Call, upload: Upload, number: int, file: Path, details: Details) -> Part:
    algorithm = upload.algorithm
    if algorithm and algorithm not in details.checksums:
        message = f"The upload was created for {algorithm} checksums, but the part has {', '.join(details.checksums)}."
        raise ServiceError("InvalidRequest", message)
    return call.uploads.put_part(upload, number, file, details)


def _make_part_members(part: Part) -> dict[str, str]:
    return {"ETag": f'"{part.details.etag}"', **_make_checksum_values(part.details)}


def _make_checksum_values(details: Details) -> dict[str, str]:
    return {f"Checksum{algorithm}": value for algorithm, value in details.checksums.items()}


def complete_multipart_upload(call: Call) -> OperationResult:
    upload, condition = _get_upload(call), conditions.make_write_condition(call.members)
    with call.uploads.lock(upload), call.store.new_file() as path:
        call.store.check_writable(call.bucket, call.key)
        details = _assemble(upload, _select_parts(call, upload), path)
        _check_object(call, details)
        call.store.put(call.bucket, call.key, path, details, condition)
        call.uploads.remove(upload)
    location = {"Location": f"/{call.bucket}/{quote(call.key)}", "Bucket": call.bucket, "Key": call.key}
    return OperationResult({**location, "ETag": f'"{details.etag}"', **make_checksum_members(details)})


def _select_parts(call: Call, upload: Upload) -> list[Part]:
    """Return the parts that the request lists. Raises ServiceError if the list is not valid."""
    listed_parts: Sequence[Mapping[str, Any]] = call.members.get("MultipartUpload", {}).get("Parts", ())
    if not listed_parts or any("PartNumber" not in part or "ETag" not in part for part in listed_parts):
        raise make_malformed_xml_error("it must list at least one part; every part needs a PartNumber and an ETag")
    if any(first["PartNumber"] >= second["PartNumber"] for first, second in pairwise(listed_parts)):
        raise ServiceError("InvalidPartOrder", "The list of parts was not in ascending order of their numbers.")
    parts_by_number = {part.number: part for part in call.uploads.list_parts(upload)}
    selected_parts = [_find_part(parts_by_number, part) for part in listed_parts]
    for part in selected_parts[:-1]:
        if part.size < MIN_PART_BYTES:
            minimum = f"all parts except the last one need at least {MIN_PART_BYTES}"
            message = f"Part {part.number} has {part.size} bytes; {minimum}."
            raise ServiceError("EntityTooSmall", message)
    return selected_parts


def _find_part(parts_by_number: Mapping[int, Part], listed_part: Mapping[str, Any]) -> Part:
    number, etag = listed_part["PartNumber"], listed_part["ETag"]
    part = parts_by_number.get(number)
    if part is not None:
        members = {"PartNumber": number, "ETag": part.details.etag, **_make_checksum_values(part.details)}
        if {**listed_part, "ETag": etag.strip('"')}.items() <= members.items():
            return part
    raise ServiceError(
        "InvalidPart", f"Part {number} was not uploaded, or its ETag or checksum differs from that in the request."
    )


def _assemble(upload: Upload, parts: Sequence[Part], path: Path) -> Details:
    """Write the parts into one file; return the details of the object."""
    algorithm, is_full_object = upload.algorithm, upload.details.checksum_type == "FULL_OBJECT"
    digests = make_digests(algorithm if is_full_object else "")
    with path.open("xb") as file:
        for part in parts:
            with part.path.open("rb", buffering=0) as content:
                write_blocks(FileBody(content, Span(0, part.size)), file, [*digests.values()])
    md5 = hashlib.md5(b"".join(bytes.fromhex(part.details.etag) for part in parts), usedforsecurity=False)
    checksums = encode_digests(digests)
    if algorithm and not is_full_object:
        part_checksums = [part.details.checksums[algorithm] for part in parts]
        checksums = {algorithm: make_composite_checksum(algorithm, part_checksums)}
    sizes = tuple(part.size for part in parts)
    return replace(upload.details, etag=f"{md5.hexdigest()}-{len(parts)}", checksums=checksums, parts=sizes)


def _check_object(call: Call, details: Details) -> None:
    """Check the object against the size, the checksum type and the checksums in the request."""
    object_members = {"MpuObjectSize": sum(details.parts), "ChecksumType": details.checksum_type}
    for name, value in object_members.items():
        if call.members.get(name, value) != value:
            message = f"{name} is {call.members[name]}, but the {name} of the uploaded parts is {value}."
            raise ServiceError("InvalidRequest", message)
    checksums = _make_checksum_values(details)
    for name in (f"Checksum{algorithm}" for algorithm in ALGORITHMS if f"Checksum{algorithm}" in call.members):
        if name not in checksums:
            raise ServiceError("InvalidRequest", f"The upload was not created for the {name} that you specified.")
        if call.members[name] not in (checksums[name], checksums[name].partition("-")[0]):
            raise ServiceError("BadDigest", f"The {name} you specified did not match the calculated checksum.")


def abort_multipart_upload(call: Call) -> OperationResult:
    call.uploads.abort(_get_upload(call))
    return OperationResult()


def list_parts(call: Call) -> OperationResult:
    upload, limit = _get_upload(call), call.get_page_limit("MaxParts")
    marker = call.members.get("PartNumberMarker", 0)
    parts = call.uploads.list_parts(upload, marker, limit + 1)
    page = parts[:limit]
    members: dict[str, Any] = {
        "Bucket": call.bucket,
        "Key": call.key,
        "UploadId": upload.id,
        "PartNumberMarker": marker,
        "NextPartNumberMarker": page[-1].number if page else marker,
        "MaxParts": limit,
        "IsTruncated": bool(page) and len(parts) > len(page),
        "Parts": [_describe_part(part) for part in page],
        "Initiator": OWNER,
        "Owner": OWNER,
        "StorageClass": "STANDARD",
    }
    return OperationResult(members | _make_checksum_type_members(upload))


def _describe_part(part: Part) -> dict[str, Any]:
    return {
        "PartNumber": part.number,
        "LastModified": part.modification_time,
        "Size": part.size,
        **_make_part_members(part),
    }


def list_multipart_uploads(call: Call) -> OperationResult:
    call.store.check_bucket(call.bucket)
    limit, prefix = call.get_page_limit("MaxUploads"), call.members.get("Prefix", "")
    key, upload_id = call.members.get("KeyMarker", ""), call.members.get("UploadIdMarker")
    # A marker without an id skips all uploads of its key. Ids are hexadecimal and sort before "~".
    start_after = (key, "~" if upload_id is None else upload_id) if key else ("", "")
    uploads = call.uploads.find(call.bucket, prefix, start_after, limit + 1)
    page = uploads[:limit]
    members: dict[str, Any] = {
        "Bucket": call.bucket,
        "KeyMarker": call.encode_key(key),
        "UploadIdMarker": upload_id or "",
        "Prefix": call.encode_key(prefix),
        "EncodingType": call.members.get("EncodingType"),
        "MaxUploads": limit,
        "IsTruncated": bool(page) and len(uploads) > len(page),
        "Uploads": [_describe_upload(call, upload) for upload in page],
    }
    if page:
        members |= {"NextKeyMarker": call.encode_key(page[-1].key), "NextUploadIdMarker": page[-1].id}
    return OperationResult(members)


def _describe_upload(call: Call, upload: Upload) -> dict[str, Any]:
    members = {
        "UploadId": upload.id,
        "Key": call.encode_key(upload.key),
        "Initiated": upload.created,
        "StorageClass": "STANDARD",
        "Owner": OWNER,
        "Initiator": OWNER,
    }
    return members | _make_checksum_type_members(upload)


OPERATIONS: Mapping[str, Operation] = {
    "CreateMultipartUpload": create_multipart_upload,
    "UploadPart": upload_part,
    "UploadPartCopy": upload_part_copy,
    "CompleteMultipartUpload": complete_multipart_upload,
    "AbortMultipartUpload": abort_multipart_upload,
    "ListParts": list_parts,
    "ListMultipartUploads": list_multipart_uploads,
}
