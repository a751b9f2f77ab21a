"""Tests for S3 objects through boto3: write, read, head, copy, tag and delete."""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock
from urllib.request import Request as URLRequest
from urllib.request import urlopen
from xml.etree import ElementTree

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.identity import ACCOUNT
from microjobs_orchestrator.local.parity import s3 as parity
from microjobs_orchestrator.local.s3 import checksums
from tests.local.s3.conftest import BUCKET

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from tests.local.s3.conftest import MakeClient


def get_code_and_status(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def get_http_status(call: Callable[..., Any], **arguments: Any) -> int:
    try:
        answer: Mapping[str, Any] = call(Bucket=BUCKET, **arguments)
    except ClientError as error:
        answer = error.response
    status: int = answer["ResponseMetadata"]["HTTPStatusCode"]
    return status


def read_content(s3: "S3Client", key: str, **arguments: Any) -> bytes:
    return s3.get_object(Bucket=BUCKET, Key=key, **arguments)["Body"].read()


@pytest.mark.parametrize(
    "key", ["a b/c+d&e=f", "100%2F", "é\u0301/ünï", "a\r\nb", "~!*'();:@$,[]#?", "\U0001f600", "a\\b"]
)
def test_key_is_stored_and_listed_unchanged(s3: "S3Client", home: Home, key: str) -> None:
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"content")
    assert read_content(s3, key) == b"content"
    assert (home.buckets / BUCKET / key).read_bytes() == b"content"
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET)["Contents"]] == [key]
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key}]})
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0


@pytest.mark.parametrize("key", ["a//b", "/a", "a/../b", "x/."])
def test_key_that_is_no_file_path_raises(s3: "S3Client", home: Home, key: str) -> None:
    with pytest.raises(ClientError, match="Objects are files on this server") as raised:
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"content")
    assert get_code_and_status(raised) == ("InvalidArgument", 400)
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket=BUCKET, Key=key)
    assert not list((home.buckets / BUCKET).iterdir())


def test_metadata_and_headers_are_stored(s3: "S3Client") -> None:
    properties: Mapping[str, Any] = {
        "ContentType": "application/x-npy",
        "CacheControl": "no-store",
        "ContentDisposition": "attachment",
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
        "Metadata": {"my_key": "1", "my-key": "2"},
    }
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"content", **properties)
    for answer in (s3.head_object(Bucket=BUCKET, Key="a"), s3.get_object(Bucket=BUCKET, Key="a")):
        assert {name: value for name, value in answer.items() if name in properties} == properties


def test_head_returns_the_headers_of_get(s3: "S3Client") -> None:
    start = datetime.now(UTC) - timedelta(seconds=1)
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"content")
    head, get = s3.head_object(Bucket=BUCKET, Key="a"), s3.get_object(Bucket=BUCKET, Key="a")
    assert head["ETag"] == get["ETag"] == f'"{hashlib.md5(b"content").hexdigest()}"'  # noqa: S324
    assert head["ContentLength"] == get["ContentLength"] == 7
    assert start <= head["LastModified"] == get["LastModified"] <= datetime.now(UTC)
    assert (head["AcceptRanges"], head["ContentType"]) == ("bytes", "binary/octet-stream")


def test_file_added_to_bucket_folder_is_served(s3: "S3Client", home: Home) -> None:
    (home.buckets / BUCKET / "data.csv").write_bytes(b"1,2\n")
    response = s3.get_object(Bucket=BUCKET, Key="data.csv")
    assert (response["Body"].read(), response["ContentType"]) == (b"1,2\n", "text/csv")
    assert response["ETag"] == f'"{hashlib.md5(b"1,2" + bytes([10])).hexdigest()}"'  # noqa: S324


def test_empty_object_is_stored(s3: "S3Client") -> None:
    s3.put_object(Bucket=BUCKET, Key="empty", Body=b"")
    assert read_content(s3, "empty") == b""


def test_folder_marker_is_stored_as_object(s3: "S3Client", home: Home) -> None:
    s3.put_object(Bucket=BUCKET, Key="a/b/", Body=b"", ContentType="application/x-directory")
    s3.put_object(Bucket=BUCKET, Key="a/b/c", Body=b"x")
    assert (home.buckets / BUCKET / "a/b").is_dir()
    assert s3.head_object(Bucket=BUCKET, Key="a/b/")["ContentType"] == "application/x-directory"
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["a/b/", "a/b/c"]


@pytest.mark.parametrize(
    ("range_header", "expected"),
    [
        ("bytes=0-3", b"0123"),
        ("bytes=4-", b"456789"),
        ("bytes=-3", b"789"),
        ("bytes=8-99", b"89"),
        ("bytes=-99", b"0123456789"),
        ("bytes=9-9", b"9"),
    ],
)
def test_range_returns_its_bytes(s3: "S3Client", range_header: str, expected: bytes) -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"0123456789")
    response = s3.get_object(Bucket=BUCKET, Key="a", Range=range_header)
    start = b"0123456789".index(expected)
    assert response["ContentRange"] == f"bytes {start}-{start + len(expected) - 1}/10"
    assert (response["ResponseMetadata"]["HTTPStatusCode"], response["Body"].read()) == (206, expected)


@pytest.mark.parametrize("range_header", ["bytes=10-", "bytes=-0", "bytes=99-100"])
def test_range_outside_object_raises(s3: "S3Client", range_header: str) -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"0123456789")
    with pytest.raises(ClientError) as raised:
        s3.get_object(Bucket=BUCKET, Key="a", Range=range_header)
    assert get_code_and_status(raised) == ("InvalidRange", 416)


@pytest.mark.parametrize("range_header", ["bytes=3-1", "bytes=0-1,3-4", "lines=1-2"])
def test_invalid_or_multiple_ranges_return_the_whole_object(s3: "S3Client", range_header: str) -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"0123456789")
    assert read_content(s3, "a", Range=range_header) == b"0123456789"


PAST, FUTURE = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
OTHER_ETAG = '"00000000000000000000000000000000"'
CONTENT_ETAG = '"9a0364b9e99bb480dd25e1f0284c8555"'


@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        ({"IfMatch": CONTENT_ETAG}, 200),
        ({"IfMatch": f"{OTHER_ETAG}, {CONTENT_ETAG}"}, 200),
        ({"IfMatch": OTHER_ETAG}, 412),
        ({"IfNoneMatch": CONTENT_ETAG}, 304),
        ({"IfNoneMatch": "*"}, 304),
        ({"IfNoneMatch": OTHER_ETAG}, 200),
        ({"IfModifiedSince": PAST}, 200),
        ({"IfModifiedSince": FUTURE}, 304),
        ({"IfUnmodifiedSince": PAST}, 412),
        ({"IfUnmodifiedSince": FUTURE}, 200),
        ({"IfMatch": CONTENT_ETAG, "IfUnmodifiedSince": PAST}, 200),
        ({"IfNoneMatch": OTHER_ETAG, "IfModifiedSince": FUTURE}, 200),
        ({"IfNoneMatch": CONTENT_ETAG, "IfModifiedSince": PAST}, 304),
    ],
)
def test_conditional_read_returns_status(s3: "S3Client", conditions: dict[str, Any], status: int) -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"content")
    for read in (s3.get_object, s3.head_object):
        assert get_http_status(read, Key="a", **conditions) == status


def test_object_counts_as_unmodified_since_its_last_modified_date(s3: "S3Client") -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"content")
    date = s3.head_object(Bucket=BUCKET, Key="a")["LastModified"]
    assert get_http_status(s3.get_object, Key="a", IfUnmodifiedSince=date) == 200
    assert get_http_status(s3.get_object, Key="a", IfModifiedSince=date) == 304


def test_if_none_match_prevents_overwriting(s3: "S3Client") -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"one", IfNoneMatch="*")
    with pytest.raises(ClientError) as raised:
        s3.put_object(Bucket=BUCKET, Key="a", Body=b"two", IfNoneMatch="*")
    assert get_code_and_status(raised) == ("PreconditionFailed", 412)
    assert read_content(s3, "a") == b"one"


def test_if_match_prevents_overwriting_another_version(s3: "S3Client") -> None:
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.put_object(Bucket=BUCKET, Key="a", Body=b"one", IfMatch=OTHER_ETAG)
    etag = s3.put_object(Bucket=BUCKET, Key="a", Body=b"one")["ETag"]
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"two", IfMatch=etag)
    for write in (s3.delete_object, s3.put_object):
        with pytest.raises(ClientError) as raised:
            write(Bucket=BUCKET, Key="a", IfMatch=etag)
        assert get_code_and_status(raised) == ("PreconditionFailed", 412)
    assert read_content(s3, "a") == b"two"


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksum_is_stored_and_returned(s3: "S3Client", algorithm: Any) -> None:
    put: Mapping[str, Any] = s3.put_object(Bucket=BUCKET, Key="a", Body=b"content", ChecksumAlgorithm=algorithm)
    head: Mapping[str, Any] = s3.head_object(Bucket=BUCKET, Key="a", ChecksumMode="ENABLED")
    assert put[f"Checksum{algorithm}"] == head[f"Checksum{algorithm}"]
    assert head["ChecksumType"] == "FULL_OBJECT"
    response = s3.get_object(Bucket=BUCKET, Key="a")
    assert (response["Body"].read(), response["ResponseMetadata"].get("ChecksumAlgorithm")) == (
        b"content",
        algorithm.lower(),
    )


@pytest.mark.parametrize(
    "wrong_checksum",
    [
        {"ChecksumCRC32": "AAAAAA=="},
        {"ChecksumSHA256": "A" * 43 + "="},
        {"ChecksumCRC64NVME": "AAAAAAAAAAA="},
        {"ContentMD5": "AAAAAAAAAAAAAAAAAAAAAA=="},
    ],
)
def test_body_with_wrong_checksum_raises(s3: "S3Client", home: Home, wrong_checksum: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as raised:
        s3.put_object(Bucket=BUCKET, Key="a", Body=b"content", **wrong_checksum)
    assert get_code_and_status(raised) == ("BadDigest", 400)
    assert not list((home.buckets / BUCKET).iterdir())
    assert not list((home.objects / "incoming").iterdir())


def test_parity_rows_have_the_supported_algorithms() -> None:
    assert tuple(checksums.ALGORITHMS) == parity.ALGORITHMS


def test_unsupported_checksum_error_names_algorithms(s3: "S3Client") -> None:
    with pytest.raises(ClientError, match=r"ChecksumXXHASH64 .*use one of CRC32, .*MD5") as raised:
        s3.put_object(Bucket=BUCKET, Key="a", Body=b"content", ChecksumXXHASH64="AAAAAAAAAAA=")
    assert get_code_and_status(raised) == ("NotImplemented", 501)
    operations: tuple[Any, ...] = (s3.create_multipart_upload, partial(s3.copy_object, CopySource=f"{BUCKET}/a"))
    for operation in operations:
        with pytest.raises(ClientError, match=r"ChecksumAlgorithm .*honoured: CRC32, .*MD5") as raised:
            operation(Bucket=BUCKET, Key="b", ChecksumAlgorithm="XXHASH64")
        assert get_code_and_status(raised) == ("NotImplemented", 501)


def test_request_overrides_response_headers(s3: "S3Client") -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"content", ContentType="text/plain")
    response = s3.get_object(Bucket=BUCKET, Key="a", ResponseContentType="text/x", ResponseContentDisposition="inline")
    assert (response["ContentType"], response["ContentDisposition"]) == ("text/x", "inline")


def test_copy_keeps_or_replaces_metadata(s3: "S3Client") -> None:
    s3.put_object(Bucket=BUCKET, Key="a b%", Body=b"content", Metadata={"k": "v"}, ContentType="text/x")
    source = {"Bucket": BUCKET, "Key": "a b%"}
    result = s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=source)["CopyObjectResult"]  # type: ignore[arg-type]
    s3.copy_object(Bucket=BUCKET, Key="new", CopySource=source, MetadataDirective="REPLACE", ContentType="text/y")  # type: ignore[arg-type]
    copy_head, new_head = s3.head_object(Bucket=BUCKET, Key="copy"), s3.head_object(Bucket=BUCKET, Key="new")
    assert (copy_head["Metadata"], copy_head["ContentType"]) == ({"k": "v"}, "text/x")
    assert (new_head["Metadata"], new_head["ContentType"]) == ({}, "text/y")
    assert copy_head["ETag"] == new_head["ETag"] == result["ETag"]
    assert read_content(s3, "new") == b"content"


def test_copy_onto_itself_must_change_something(s3: "S3Client") -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"content")
    with pytest.raises(ClientError, match="without changing it"):
        s3.copy_object(Bucket=BUCKET, Key="a", CopySource=f"{BUCKET}/a")
    s3.copy_object(Bucket=BUCKET, Key="a", CopySource=f"{BUCKET}/a", MetadataDirective="REPLACE", Metadata={"k": "v"})
    assert s3.head_object(Bucket=BUCKET, Key="a")["Metadata"] == {"k": "v"}


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ({"CopySourceIfMatch": OTHER_ETAG}, 412),
        ({"CopySourceIfNoneMatch": CONTENT_ETAG}, 412),
        ({"CopySourceIfMatch": CONTENT_ETAG}, 200),
    ],
)
def test_conditional_copy_returns_status(s3: "S3Client", condition: dict[str, Any], status: int) -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"content")
    assert get_http_status(s3.copy_object, Key="b", CopySource=f"{BUCKET}/a", **condition) == status


@pytest.mark.parametrize(
    ("condition", "status"),
    [({"IfNoneMatch": "*"}, 412), ({"IfMatch": OTHER_ETAG}, 412), ({"IfMatch": CONTENT_ETAG}, 200)],
)
def test_copy_replaces_its_target_only_if_the_condition_holds(
    s3: "S3Client", condition: dict[str, Any], status: int
) -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"new")
    s3.put_object(Bucket=BUCKET, Key="b", Body=b"content")
    assert get_http_status(s3.copy_object, Key="b", CopySource=f"{BUCKET}/a", **condition) == status
    assert read_content(s3, "b") == (b"new" if status == 200 else b"content")


def test_delete_of_missing_object_succeeds(s3: "S3Client", home: Home) -> None:
    s3.put_object(Bucket=BUCKET, Key="a/b/c", Body=b"x")
    for _ in range(2):
        assert s3.delete_object(Bucket=BUCKET, Key="a/b/c")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert not list((home.buckets / BUCKET).iterdir())


def test_delete_objects_reports_each_key(s3: "S3Client") -> None:
    for key in ("a", "b"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    objects: Any = [{"Key": "a"}, {"Key": "missing"}, {"Key": "b", "ETag": OTHER_ETAG}]
    response = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": objects})
    assert [item["Key"] for item in response["Deleted"]] == ["a", "missing"]
    assert [(item["Key"], item["Code"]) for item in response["Errors"]] == [("b", "PreconditionFailed")]
    assert "Deleted" not in s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "b"}], "Quiet": True})


def test_tags_are_stored_replaced_and_deleted(s3: "S3Client") -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"x", Tagging="one=1&two=2")
    assert s3.head_object(Bucket=BUCKET, Key="a")["TagCount"] == 2
    tags: Any = [{"Key": "three", "Value": "<3>"}]
    s3.put_object_tagging(Bucket=BUCKET, Key="a", Tagging={"TagSet": tags})
    assert s3.get_object_tagging(Bucket=BUCKET, Key="a")["TagSet"] == tags
    s3.delete_object_tagging(Bucket=BUCKET, Key="a")
    assert s3.get_object_tagging(Bucket=BUCKET, Key="a")["TagSet"] == []


def test_object_attributes_return_the_requested_members(s3: "S3Client") -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"content")
    response = s3.get_object_attributes(Bucket=BUCKET, Key="a", ObjectAttributes=["ETag", "ObjectSize", "Checksum"])
    assert (response["ETag"], response["ObjectSize"], "StorageClass" in response) == (CONTENT_ETAG.strip('"'), 7, False)
    assert response["Checksum"]["ChecksumType"] == "FULL_OBJECT"


@pytest.mark.parametrize("call", ["get_object", "head_object", "put_object", "delete_object", "list_objects_v2"])
def test_missing_bucket_raises(s3: "S3Client", call: str) -> None:
    key = {} if call.startswith("list") else {"Key": "a"}
    with pytest.raises(ClientError) as raised:
        getattr(s3, call)(Bucket="no-such-bucket", **key)
    assert get_code_and_status(raised) == (("404" if call == "head_object" else "NoSuchBucket"), 404)


def test_wrong_expected_owner_is_denied(s3: "S3Client") -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"x", ExpectedBucketOwner=ACCOUNT)
    with pytest.raises(ClientError) as raised:
        s3.put_object(Bucket=BUCKET, Key="a", Body=b"x", ExpectedBucketOwner="111111111111")
    assert get_code_and_status(raised) == ("AccessDenied", 403)


def test_too_much_metadata_raises(s3: "S3Client") -> None:
    with pytest.raises(ClientError) as raised:
        s3.put_object(Bucket=BUCKET, Key="a", Body=b"x", Metadata={"k": "v" * 2048})
    assert get_code_and_status(raised) == ("MetadataTooLarge", 400)


def test_bucket_in_host_name_is_accepted(make_client: "MakeClient", endpoint_url: str, home: Home) -> None:
    (home.buckets / BUCKET / "a").write_bytes(b"content")
    client = make_client(Config(s3={"addressing_style": "virtual"}))
    client.meta.events.register("before-send.s3", lambda request, **_: _use_bucket_host_name(request, endpoint_url))
    assert read_content(client, "a") == b"content"


def _use_bucket_host_name(request: Any, endpoint_url: str) -> None:
    """Put the bucket into the host name, but send the request to the server, because `*.localhost` may not resolve."""
    request.headers["Host"] = f"{BUCKET}.localhost"
    request.url = f"{endpoint_url}/a"


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_presigned_urls_read_and_write(make_client: "MakeClient", endpoint_url: str, version: Any) -> None:
    client = make_client(Config(signature_version=version))
    for method, name, content in (("PUT", "put_object", b"content"), ("GET", "get_object", None)):
        url = client.generate_presigned_url(name, Params={"Bucket": BUCKET, "Key": "a b"}, HttpMethod=method)
        assert url.startswith(endpoint_url)
        with urlopen(URLRequest(url, content, method=method)) as answer:
            body = answer.read()
    assert body == b"content"


def test_unreadable_file_raises_access_denied(s3: "S3Client", monkeypatch: pytest.MonkeyPatch) -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"content")
    monkeypatch.setattr(Path, "open", MagicMock(side_effect=PermissionError(13, "no", "the/file")))
    with pytest.raises(ClientError, match="no permission to access the/file") as raised:
        s3.get_object(Bucket=BUCKET, Key="a")
    assert get_code_and_status(raised) == ("AccessDenied", 403)


def test_error_body_is_s3_xml(endpoint_url: str) -> None:
    connection = HTTPConnection(endpoint_url.removeprefix("http://"))
    with closing(connection):
        connection.request("GET", f"/{BUCKET}/a%20%3Cb%3E%01")
        response = connection.getresponse()
        error = ElementTree.fromstring(response.read())  # noqa: S314  the XML comes from the server under test
    assert [item.tag for item in error] == ["Code", "Message", "Resource", "RequestId"]
    assert (error.findtext("Code"), error.findtext("Resource")) == ("NoSuchKey", f"/{BUCKET}/a%20%3Cb%3E%01")
    assert error.findtext("RequestId") == response.headers["x-amz-request-id"]
