"""Tests for listings of objects and buckets, and their pages."""

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.s3.store import ObjectStore
from tests.local.s3.conftest import BUCKET

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

KEYS = ["a", "a-b", "a.b", "b/1", "b/2", "b/c/3", "d/e/f", "g", "é/1"]


@pytest.fixture
def stored_keys(store: ObjectStore) -> None:
    for key in KEYS:
        path = store.home.buckets / BUCKET / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(key)


def list_keys_and_prefixes(s3: "S3Client", operation: str, size: int, **arguments: Any) -> tuple[list[str], list[str]]:
    """Return all keys and all common prefixes, read in pages of `size` entries."""
    keys: list[str] = []
    prefixes: list[str] = []
    paginator = s3.get_paginator(operation)  # type: ignore[call-overload]
    for page in paginator.paginate(Bucket=BUCKET, PaginationConfig={"PageSize": size}, **arguments):
        contents, common_prefixes = page.get("Contents", []), page.get("CommonPrefixes", [])
        assert len(contents) + len(common_prefixes) <= size
        keys += [item["Key"] for item in contents]
        prefixes += [item["Prefix"] for item in common_prefixes]
    return keys, prefixes


@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, (KEYS, [])),
        ({"Prefix": "b"}, (["b/1", "b/2", "b/c/3"], [])),
        ({"Prefix": "no"}, ([], [])),
        ({"Delimiter": "/"}, (["a", "a-b", "a.b", "g"], ["b/", "d/", "é/"])),
        ({"Delimiter": "/", "Prefix": "b/"}, (["b/1", "b/2"], ["b/c/"])),
        ({"Delimiter": "/", "Prefix": "b"}, ([], ["b/"])),
        ({"Delimiter": "/", "Prefix": "d/e"}, ([], ["d/e/"])),
        ({"Delimiter": "-"}, ([key for key in KEYS if key != "a-b"], ["a-"])),
        ({"Delimiter": "/c"}, ([key for key in KEYS if key != "b/c/3"], ["b/c"])),
    ],
)
@pytest.mark.usefixtures("stored_keys")
def test_pages_contain_each_key_and_prefix_once(
    s3: "S3Client",
    operation: str,
    size: int,
    arguments: dict[str, str],
    expected: tuple[list[str], list[str]],
) -> None:
    assert list_keys_and_prefixes(s3, operation, size, **arguments) == expected


@pytest.mark.usefixtures("stored_keys")
def test_list_starts_after_a_key(s3: "S3Client") -> None:
    response = s3.list_objects_v2(Bucket=BUCKET, StartAfter="b/2", MaxKeys=2)
    assert [item["Key"] for item in response["Contents"]] == ["b/c/3", "d/e/f"]
    assert (response["KeyCount"], response["IsTruncated"], response["StartAfter"]) == (2, True, "b/2")


@pytest.mark.usefixtures("stored_keys")
def test_listed_object_has_the_details_of_head_object(s3: "S3Client") -> None:
    item = s3.list_objects_v2(Bucket=BUCKET, MaxKeys=1, FetchOwner=True)["Contents"][0]
    head = s3.head_object(Bucket=BUCKET, Key="a")
    assert (item["ETag"], item["Size"], item["StorageClass"]) == (head["ETag"], 1, "STANDARD")
    assert item["LastModified"].replace(microsecond=0) == head["LastModified"]
    assert item["Owner"]["ID"] == "000000000000"


@pytest.mark.usefixtures("stored_keys")
def test_page_of_size_zero_is_empty_and_last(s3: "S3Client") -> None:
    response = s3.list_objects_v2(Bucket=BUCKET, MaxKeys=0)
    assert (response["KeyCount"], response["IsTruncated"]) == (0, False)


@pytest.mark.parametrize(("name", "value"), [("ContinuationToken", "no token"), ("MaxKeys", -1)])
def test_invalid_member_raises(s3: "S3Client", name: str, value: Any) -> None:
    with pytest.raises(ClientError, match="InvalidArgument"):
        s3.list_objects_v2(Bucket=BUCKET, **{name: value})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(names=st.sets(st.text(st.sampled_from("ab./-"), min_size=1, max_size=6), max_size=10), size=st.integers(1, 4))
def test_common_prefixes_equal_grouped_keys(s3: "S3Client", names: set[str], size: int) -> None:
    for name in names:
        status = 0
        try:
            s3.put_object(Bucket=BUCKET, Key=name)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        assert status in (0, 400)
    all_keys, _ = list_keys_and_prefixes(s3, "list_objects_v2", 1000)
    keys, prefixes = list_keys_and_prefixes(s3, "list_objects_v2", size, Delimiter="/")
    assert keys == [key for key in all_keys if "/" not in key]
    assert prefixes == sorted({key.partition("/")[0] + "/" for key in all_keys if "/" in key})
    for key in all_keys:
        s3.delete_object(Bucket=BUCKET, Key=key)


def test_bucket_is_created_and_deleted(s3: "S3Client", home: Home) -> None:
    s3.create_bucket(Bucket="another")
    s3.get_waiter("bucket_exists").wait(Bucket="another", WaiterConfig={"Delay": 0, "MaxAttempts": 1})
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == [BUCKET, "another"]
    assert s3.head_bucket(Bucket="another")["BucketRegion"] == "us-east-1"
    assert s3.get_bucket_location(Bucket="another")["LocationConstraint"] is None
    assert "Status" not in s3.get_bucket_versioning(Bucket="another")
    s3.delete_bucket(Bucket="another")
    assert not (home.buckets / "another").exists()


def test_buckets_are_listed_in_pages(s3: "S3Client") -> None:
    for name in ("b-1", "b-2"):
        s3.create_bucket(Bucket=name)
    names = s3.get_paginator("list_buckets").paginate(PaginationConfig={"PageSize": 1}).search("Buckets[].Name")
    assert list(names) == [BUCKET, "b-1", "b-2"]
    assert [bucket["Name"] for bucket in s3.list_buckets(Prefix="b-")["Buckets"]] == ["b-1", "b-2"]


@pytest.mark.usefixtures("stored_keys")
def test_bucket_with_objects_is_not_deleted(s3: "S3Client") -> None:
    with pytest.raises(ClientError, match="BucketNotEmpty"):
        s3.delete_bucket(Bucket=BUCKET)
    assert list_keys_and_prefixes(s3, "list_objects_v2", 1000)[0] == KEYS


def test_duplicate_bucket_raises(s3: "S3Client") -> None:
    with pytest.raises(s3.exceptions.BucketAlreadyOwnedByYou) as caught:
        s3.create_bucket(Bucket=BUCKET)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 409


def test_bucket_in_another_region_raises(s3: "S3Client") -> None:
    with pytest.raises(ClientError, match="this server has only the region 'us-east-1'"):
        s3.create_bucket(Bucket="another", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})


def test_deleting_a_bucket_aborts_its_uploads(s3: "S3Client", home: Home) -> None:
    s3.create_multipart_upload(Bucket=BUCKET, Key="a")
    s3.delete_bucket(Bucket=BUCKET)
    assert not list((home.objects / "uploads").iterdir())
