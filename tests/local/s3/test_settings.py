"""Tests for the settings of buckets, which clients such as Terraform read and write."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.s3.conftest import BUCKET

TAGS = [{"Key": "a", "Value": "b"}]
POLICY = json.dumps({"Version": "2012-10-17", "Statement": []})

Client = Any


def get_error_code(call: Any, **members: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**members)
    return str(caught.value.response["Error"]["Code"])


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ("get_bucket_policy", "NoSuchBucketPolicy"),
        ("get_bucket_policy_status", "NoSuchBucketPolicy"),
        ("get_bucket_tagging", "NoSuchTagSet"),
        ("get_bucket_cors", "NoSuchCORSConfiguration"),
        ("get_bucket_website", "NoSuchWebsiteConfiguration"),
        ("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration"),
        ("get_bucket_replication", "ReplicationConfigurationNotFoundError"),
        ("get_object_lock_configuration", "ObjectLockConfigurationNotFoundError"),
    ],
)
def test_missing_setting_of_new_bucket_raises(s3: Client, operation: str, code: str) -> None:
    assert get_error_code(getattr(s3, operation), Bucket=BUCKET) == code
    assert get_error_code(getattr(s3, operation), Bucket="absent-bucket") == "NoSuchBucket"


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("get_bucket_versioning", {}),
        ("get_bucket_logging", {}),
        ("get_bucket_notification_configuration", {}),
        ("get_bucket_accelerate_configuration", {}),
        ("get_bucket_request_payment", {"Payer": "BucketOwner"}),
        (
            "get_bucket_encryption",
            {
                "ServerSideEncryptionConfiguration": {
                    "Rules": [
                        {
                            "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"},
                            "BucketKeyEnabled": False,
                        }
                    ]
                }
            },
        ),
        (
            "get_public_access_block",
            {
                "PublicAccessBlockConfiguration": {
                    "BlockPublicAcls": True,
                    "IgnorePublicAcls": True,
                    "BlockPublicPolicy": True,
                    "RestrictPublicBuckets": True,
                }
            },
        ),
        (
            "get_bucket_ownership_controls",
            {"OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}},
        ),
    ],
)
def test_new_bucket_has_the_settings_of_aws(s3: Client, operation: str, expected: dict[str, Any]) -> None:
    response = getattr(s3, operation)(Bucket=BUCKET)
    del response["ResponseMetadata"]
    assert response == expected


@pytest.mark.parametrize(
    ("setting", "member", "value", "code"),
    [
        ("bucket_tagging", "Tagging", {"TagSet": TAGS}, "NoSuchTagSet"),
        (
            "bucket_encryption",
            "ServerSideEncryptionConfiguration",
            {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "k"}}]},
            "ServerSideEncryptionConfigurationNotFoundError",
        ),
        (
            "public_access_block",
            "PublicAccessBlockConfiguration",
            {"BlockPublicAcls": False, "IgnorePublicAcls": True},
            "NoSuchPublicAccessBlockConfiguration",
        ),
        (
            "bucket_ownership_controls",
            "OwnershipControls",
            {"Rules": [{"ObjectOwnership": "ObjectWriter"}]},
            "OwnershipControlsNotFoundError",
        ),
        ("bucket_policy", "Policy", POLICY, "NoSuchBucketPolicy"),
    ],
)
def test_setting_is_stored_until_it_is_deleted(s3: Client, setting: str, member: str, value: Any, code: str) -> None:
    s3.create_bucket(Bucket="set-bucket")
    getattr(s3, f"put_{setting}")(Bucket="set-bucket", **{member: value})
    response = getattr(s3, f"get_{setting}")(Bucket="set-bucket")
    assert response.get(member, {"TagSet": response.get("TagSet")}) == value
    getattr(s3, f"delete_{setting}")(Bucket="set-bucket")
    assert get_error_code(getattr(s3, f"get_{setting}"), Bucket="set-bucket") == code
    s3.delete_bucket(Bucket="set-bucket")


def test_deleting_a_bucket_deletes_its_settings(s3: Client) -> None:
    for _ in range(2):
        s3.create_bucket(Bucket="second-bucket")
        assert get_error_code(s3.get_bucket_policy, Bucket="second-bucket") == "NoSuchBucketPolicy"
        s3.put_bucket_policy(Bucket="second-bucket", Policy=POLICY)
        assert s3.get_bucket_policy_status(Bucket="second-bucket")["PolicyStatus"] == {"IsPublic": False}
        s3.delete_bucket(Bucket="second-bucket")


@pytest.mark.parametrize(
    ("operation", "members", "code"),
    [
        ("put_bucket_versioning", {"VersioningConfiguration": {"Status": "Enabled"}}, "NotImplemented"),
        ("put_bucket_policy", {"Policy": "no JSON"}, "MalformedPolicy"),
        ("put_bucket_tagging", {"Tagging": {"TagSet": [*TAGS, *TAGS]}}, "InvalidTag"),
        ("put_bucket_acl", {"ACL": "public-read"}, "NotImplemented"),
        ("put_bucket_acl", {"GrantRead": "id=x"}, "NotImplemented"),
        ("put_bucket_lifecycle_configuration", {"LifecycleConfiguration": {"Rules": []}}, "NotImplemented"),
        ("put_bucket_website", {"WebsiteConfiguration": {}}, "NotImplemented"),
    ],
)
def test_unsupported_or_invalid_setting_raises(s3: Client, operation: str, members: dict[str, Any], code: str) -> None:
    assert get_error_code(getattr(s3, operation), Bucket=BUCKET, **members) == code


def test_acl_grants_access_only_to_the_owner(s3: Client) -> None:
    s3.put_object(Bucket=BUCKET, Key="owned", Body=b"", ACL="bucket-owner-full-control")
    s3.put_object_acl(Bucket=BUCKET, Key="owned", ACL="bucket-owner-full-control")
    s3.put_bucket_acl(Bucket=BUCKET, ACL="private")
    for acl in (s3.get_bucket_acl(Bucket=BUCKET), s3.get_object_acl(Bucket=BUCKET, Key="owned")):
        (grant,) = acl["Grants"]
        assert (grant["Permission"], grant["Grantee"]["Type"]) == ("FULL_CONTROL", "CanonicalUser")
        assert grant["Grantee"]["ID"] == acl["Owner"]["ID"] == "000000000000"
    assert get_error_code(s3.get_object_acl, Bucket=BUCKET, Key="absent") == "NoSuchKey"


def test_new_bucket_may_have_an_acl_for_its_owner_but_no_public_acl(s3: Client) -> None:
    s3.create_bucket(Bucket="owned-bucket", ACL="bucket-owner-full-control")
    assert get_error_code(s3.create_bucket, Bucket="public-bucket", ACL="public-read") == "NotImplemented"
    s3.delete_bucket(Bucket="owned-bucket")


def test_objects_have_one_version(s3: Client) -> None:
    s3.create_bucket(Bucket="version-bucket")
    for key in ("a", "b/1", "b/2", "c"):
        s3.put_object(Bucket="version-bucket", Key=key, Body=b"x")
    pages = s3.get_paginator("list_object_versions").paginate(Bucket="version-bucket", PaginationConfig={"PageSize": 3})
    versions = [item for page in pages for item in page["Versions"]]
    assert [(item["Key"], item["VersionId"], item["IsLatest"]) for item in versions] == [
        (key, "null", True) for key in ("a", "b/1", "b/2", "c")
    ]
    page = s3.list_object_versions(Bucket="version-bucket", Delimiter="/", MaxKeys=2)
    assert [item["Prefix"] for item in page["CommonPrefixes"]] == ["b/"]
    assert page["NextKeyMarker"] == "b/"
    for item in versions:
        s3.delete_object(Bucket="version-bucket", Key=item["Key"], VersionId=item["VersionId"])
    s3.delete_bucket(Bucket="version-bucket")
