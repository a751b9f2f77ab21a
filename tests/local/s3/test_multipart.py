"""Tests for multipart uploads, with single requests and with s3transfer."""

import base64
import hashlib
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.s3.uploads import Uploads
from tests.local.s3.conftest import BUCKET

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MIB = 1 << 20
FIRST_PART, LAST_PART = bytes(range(256)) * (5 * MIB // 256), b"the end"


@pytest.fixture
def upload(s3: "S3Client") -> dict[str, Any]:
    """Create an upload. Return the members with which each request identifies the upload."""
    upload_id = s3.create_multipart_upload(Bucket=BUCKET, Key="a/b", ContentType="text/x", Metadata={"k": "v"})[
        "UploadId"
    ]
    return {"Bucket": BUCKET, "Key": "a/b", "UploadId": upload_id}


def upload_parts(s3: "S3Client", upload: dict[str, Any], *bodies: bytes) -> list[dict[str, Any]]:
    return [
        {"PartNumber": number, "ETag": s3.upload_part(**upload, PartNumber=number, Body=body)["ETag"]}
        for number, body in enumerate(bodies, 1)
    ]


def complete(s3: "S3Client", upload: dict[str, Any], parts: list[dict[str, Any]], **arguments: Any) -> dict[str, Any]:
    members: Any = {"MultipartUpload": {"Parts": parts}, **arguments}
    return dict(s3.complete_multipart_upload(**upload, **members))


def compute_crc32(content: bytes) -> str:
    return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()


def test_completed_upload_is_one_file(s3: "S3Client", upload: dict[str, Any], home: Home) -> None:
    parts = upload_parts(s3, upload, FIRST_PART, LAST_PART)
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0
    response = complete(s3, upload, parts)
    md5s = b"".join(hashlib.md5(body).digest() for body in (FIRST_PART, LAST_PART))  # noqa: S324
    assert response["ETag"] == f'"{hashlib.md5(md5s).hexdigest()}-2"'  # noqa: S324
    assert (home.buckets / BUCKET / "a/b").read_bytes() == FIRST_PART + LAST_PART
    head = s3.head_object(Bucket=BUCKET, Key="a/b")
    assert (head["ETag"], head["ContentType"], head["Metadata"]) == (response["ETag"], "text/x", {"k": "v"})
    assert not list((home.objects / "uploads").iterdir())


def test_second_upload_of_a_part_replaces_the_first(s3: "S3Client", upload: dict[str, Any], home: Home) -> None:
    upload_parts(s3, upload, b"wrong")
    parts = upload_parts(s3, upload, LAST_PART)
    assert len(list((home.objects / "uploads" / upload["UploadId"]).iterdir())) == 1
    complete(s3, upload, parts)
    assert (home.buckets / BUCKET / "a/b").read_bytes() == LAST_PART


def test_get_object_returns_one_part(s3: "S3Client", upload: dict[str, Any]) -> None:
    complete(s3, upload, upload_parts(s3, upload, FIRST_PART, LAST_PART))
    for number, content in ((1, FIRST_PART), (2, LAST_PART)):
        response = s3.get_object(Bucket=BUCKET, Key="a/b", PartNumber=number)
        assert (response["Body"].read(), response["PartsCount"]) == (content, 2)
    with pytest.raises(ClientError, match=r"the object has 2 part\(s\)"):
        s3.get_object(Bucket=BUCKET, Key="a/b", PartNumber=3)


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([], "MalformedXML"),
        ([2, 1], "InvalidPartOrder"),
        ([1, 1], "InvalidPartOrder"),
        ([1, 3], "InvalidPart"),
        ([1, 2], "EntityTooSmall"),
    ],
)
def test_invalid_list_of_parts_raises(s3: "S3Client", upload: dict[str, Any], parts: list[int], code: str) -> None:
    uploaded_parts = {part["PartNumber"]: part for part in upload_parts(s3, upload, LAST_PART, LAST_PART)}
    part_list = [uploaded_parts.get(number, {"PartNumber": number, "ETag": "x"}) for number in parts]
    with pytest.raises(ClientError) as raised:
        complete(s3, upload, part_list)
    assert raised.value.response["Error"]["Code"] == code
    assert s3.list_parts(**upload)["Parts"]


@pytest.mark.parametrize("change", [{"ETag": "x"}, {"ChecksumCRC32": "AAAAAA=="}])
def test_wrong_etag_or_checksum_of_part_raises(s3: "S3Client", upload: dict[str, Any], change: dict[str, str]) -> None:
    part = upload_parts(s3, upload, LAST_PART)[0]
    with pytest.raises(ClientError, match="InvalidPart"):
        complete(s3, upload, [part | change])


def test_completed_upload_no_longer_exists(s3: "S3Client", upload: dict[str, Any]) -> None:
    parts = upload_parts(s3, upload, LAST_PART)
    complete(s3, upload, parts)
    for call in (lambda: complete(s3, upload, parts), lambda: s3.abort_multipart_upload(**upload)):
        with pytest.raises(s3.exceptions.NoSuchUpload):
            call()


def test_abort_removes_all_parts(s3: "S3Client", upload: dict[str, Any], home: Home) -> None:
    upload_parts(s3, upload, LAST_PART)
    s3.abort_multipart_upload(**upload)
    assert not list((home.objects / "uploads").iterdir())
    with pytest.raises(s3.exceptions.NoSuchUpload):
        upload_parts(s3, upload, LAST_PART)


def test_failed_condition_prevents_completion(s3: "S3Client", upload: dict[str, Any], home: Home) -> None:
    s3.put_object(Bucket=BUCKET, Key="a/b", Body=b"first")
    parts = upload_parts(s3, upload, LAST_PART)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        complete(s3, upload, parts, IfNoneMatch="*")
    assert (home.buckets / BUCKET / "a/b").read_bytes() == b"first"
    complete(s3, upload, parts)


@pytest.mark.parametrize(
    ("algorithm", "checksum_type"),
    [("CRC32", "COMPOSITE"), ("CRC32", "FULL_OBJECT"), ("CRC64NVME", "FULL_OBJECT"), ("SHA256", "COMPOSITE")],
)
def test_checksum_of_the_object_has_the_requested_type(s3: "S3Client", algorithm: Any, checksum_type: Any) -> None:
    multipart_upload = s3.create_multipart_upload(
        Bucket=BUCKET, Key="a", ChecksumAlgorithm=algorithm, ChecksumType=checksum_type
    )
    upload: Any = {"Bucket": BUCKET, "Key": "a", "UploadId": multipart_upload["UploadId"]}
    uploaded_parts: list[Any] = [
        s3.upload_part(**upload, PartNumber=number, Body=body, ChecksumAlgorithm=algorithm)
        for number, body in enumerate((FIRST_PART, LAST_PART), 1)
    ]
    name = f"Checksum{algorithm}"
    part_list = [
        {"PartNumber": number, "ETag": part["ETag"], name: part[name]} for number, part in enumerate(uploaded_parts, 1)
    ]
    response = complete(s3, upload, part_list)
    single: Any = s3.put_object(Bucket=BUCKET, Key="b", Body=FIRST_PART + LAST_PART, ChecksumAlgorithm=algorithm)
    assert response["ChecksumType"] == checksum_type
    assert (response[name] == single[name]) == (checksum_type == "FULL_OBJECT")
    assert response[name].endswith("-2") == (checksum_type == "COMPOSITE")
    s3.get_object(Bucket=BUCKET, Key="a")["Body"].read()  # botocore verifies the checksum


def test_wrong_checksum_or_size_of_the_object_raises(s3: "S3Client") -> None:
    multipart_upload = s3.create_multipart_upload(
        Bucket=BUCKET, Key="a", ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT"
    )
    upload = {"Bucket": BUCKET, "Key": "a", "UploadId": multipart_upload["UploadId"]}
    parts = upload_parts(s3, upload, LAST_PART)
    for member, code in (
        ({"ChecksumCRC32": "AAAAAA=="}, "BadDigest"),
        ({"ChecksumSHA1": "AAAAAAAAAAAAAAAAAAAAAAAAAAA="}, "InvalidRequest"),
        ({"MpuObjectSize": 1}, "InvalidRequest"),
    ):
        with pytest.raises(ClientError, match=code):
            complete(s3, upload, parts, **member)
    complete(s3, upload, parts, MpuObjectSize=len(LAST_PART), ChecksumCRC32=compute_crc32(LAST_PART))


def test_parts_are_copied_from_objects(s3: "S3Client", upload: dict[str, Any], home: Home) -> None:
    s3.put_object(Bucket=BUCKET, Key="source", Body=b"0123456789")
    response = s3.upload_part_copy(**upload, PartNumber=1, CopySource=f"{BUCKET}/source", CopySourceRange="bytes=2-4")
    complete(s3, upload, [{"PartNumber": 1, "ETag": response["CopyPartResult"]["ETag"]}])
    assert (home.buckets / BUCKET / "a/b").read_bytes() == b"234"


@pytest.mark.parametrize("text", ["bytes=2-", "bytes=-2", "2-4", "bytes=4-2", "bytes=0-1,3-4", "bytes=2-10"])
def test_invalid_range_of_a_copied_part_raises(s3: "S3Client", upload: dict[str, Any], text: str) -> None:
    """An invalid range in the header Range selects the whole object. In CopySourceRange, it is an error."""
    s3.put_object(Bucket=BUCKET, Key="source", Body=b"0123456789")
    with pytest.raises(ClientError, match="InvalidArgument"):
        s3.upload_part_copy(**upload, PartNumber=1, CopySource=f"{BUCKET}/source", CopySourceRange=text)
    assert "Parts" not in s3.list_parts(**upload)


def test_parts_are_listed_in_pages(s3: "S3Client", upload: dict[str, Any]) -> None:
    upload_parts(s3, upload, b"1", b"22", b"333")
    pages = s3.get_paginator("list_parts").paginate(**upload, PaginationConfig={"PageSize": 2})
    sizes = [(part["PartNumber"], part["Size"]) for page in pages for part in page["Parts"]]
    assert sizes == [(1, 1), (2, 2), (3, 3)]


def test_incomplete_uploads_are_listed_in_pages(s3: "S3Client") -> None:
    for key in ("b", "a c", "a c", "d"):
        s3.create_multipart_upload(Bucket=BUCKET, Key=key)
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=BUCKET, PaginationConfig={"PageSize": 1})
    assert [upload["Key"] for page in pages for upload in page["Uploads"]] == ["a c", "a c", "b", "d"]
    assert len(s3.list_multipart_uploads(Bucket=BUCKET, Prefix="a")["Uploads"]) == 2


def test_pages_of_size_zero_are_empty_and_last(s3: "S3Client", upload: dict[str, Any]) -> None:
    """If such a page stated that it is truncated, clients that follow its marker would request it again and again."""
    upload_parts(s3, upload, LAST_PART)
    parts, uploads = s3.list_parts(**upload, MaxParts=0), s3.list_multipart_uploads(Bucket=BUCKET, MaxUploads=0)
    assert ("Parts" in parts, parts["IsTruncated"]) == (False, False)
    assert ("Uploads" in uploads, uploads["IsTruncated"]) == (False, False)


def test_restart_keeps_uploads_and_removes_unknown_files(
    s3: "S3Client", upload: dict[str, Any], store: ObjectStore
) -> None:
    upload_parts(s3, upload, LAST_PART)
    folder = store.home.objects / "uploads"
    (folder / upload["UploadId"] / "half").touch()
    (folder / "forgotten").mkdir()
    restarted_uploads = Uploads(store)
    assert [path.name for path in folder.iterdir()] == [upload["UploadId"]]
    assert len(list((folder / upload["UploadId"]).iterdir())) == 1
    assert len(restarted_uploads.list_parts(restarted_uploads.get(BUCKET, "a/b", upload["UploadId"]))) == 1


LARGE_CONTENT = FIRST_PART * 4 + LAST_PART
"""More than 8 MB, so that s3transfer uploads it in parts."""


@pytest.mark.parametrize(
    "arguments", [{}, {"ChecksumAlgorithm": "CRC64NVME"}, {"ChecksumCRC32": compute_crc32(LARGE_CONTENT)}]
)
def test_large_files_are_transferred(s3: "S3Client", tmp_path: Path, home: Home, arguments: Any) -> None:
    source, download = tmp_path / "source", tmp_path / "download"
    source.write_bytes(LARGE_CONTENT)
    s3.upload_file(str(source), BUCKET, "large", ExtraArgs=arguments)
    s3.copy({"Bucket": BUCKET, "Key": "large"}, BUCKET, "copy", Config=TransferConfig(multipart_threshold=MIB))
    for key in ("large", "copy"):
        s3.download_file(BUCKET, key, str(download))
        assert download.read_bytes() == source.read_bytes() == (home.buckets / BUCKET / key).read_bytes()
    assert s3.head_object(Bucket=BUCKET, Key="large")["ETag"].endswith('-3"')
