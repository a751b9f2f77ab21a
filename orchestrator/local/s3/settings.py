"""Settings of buckets. A new bucket has the settings of a new bucket on AWS.

Settings are stored and described. Settings that would change the server's behaviour (versioning, expiry, replication …)
are refused.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.results import OperationResult
from microjobs_orchestrator.local.s3.call import OWNER, Call, Operation

DELETED_VALUE = "null"
"""The stored value of a setting that was deleted. It is JSON's null, so Get returns `Setting.missing_error`, even for a
setting that new buckets have."""


@dataclass(frozen=True)
class Setting:
    """A setting that buckets can have."""

    name: str
    """The name in operations, such as `BucketEncryption` in GetBucketEncryption."""
    verbs: tuple[str, ...]
    """The verbs of the operations that this class performs. Functions of this module perform other operations, such as
    PutBucketTagging."""
    member: str = ""
    """The member of requests and responses that contains the setting. If it is empty, the setting is the whole
    response."""
    initial_value: Mapping[str, Any] | None = None
    """The setting of a new bucket. If it is None, Get returns the error `missing_error`."""
    missing_error: tuple[str, str] = ("", "")
    """The error's code, and the name of the setting in its message."""

    def list_operations(self) -> dict[str, Operation]:
        """Return the functions that perform the operations, by the names of the operations."""
        functions: dict[str, Operation] = {"Get": self.get, "Put": self.put, "Delete": self.delete}
        return {f"{verb}{self.name}": functions[verb] for verb in self.verbs}

    def get(self, call: Call) -> OperationResult:
        text = read_setting(call, self.name)
        value = self.initial_value if text is None else json.loads(text)
        if value is None:
            code, setting = self.missing_error
            raise ServiceError(code, f"The bucket {call.bucket!r} has no {setting}.", 404)
        return OperationResult({self.member: value} if self.member else value)

    def put(self, call: Call) -> OperationResult:
        write_setting(call, self.name, json.dumps(call.members[self.member]))
        return OperationResult()

    def delete(self, call: Call) -> OperationResult:
        write_setting(call, self.name, DELETED_VALUE)
        return OperationResult()


def read_setting(call: Call, name: str) -> str | None:
    """Return the stored value; None if it was never set. Raises ServiceError NoSuchBucket 404."""
    call.store.check_bucket(call.bucket)
    statement = "SELECT value FROM bucket_settings WHERE bucket = ? AND name = ?"
    rows = call.store.database.select(statement, (call.bucket, name))
    return rows[0][0] if rows else None


def write_setting(call: Call, name: str, value: str) -> None:
    """Store a value. Raises ServiceError NoSuchBucket 404."""
    call.store.check_bucket(call.bucket)
    call.store.database.change("INSERT OR REPLACE INTO bucket_settings VALUES (?, ?, ?)", (call.bucket, name, value))


READ_VERBS = ("Get",)
READ_AND_DELETE_VERBS = ("Get", "Delete")
DELETE_VERBS = ("Delete",)

SETTINGS = (
    Setting(
        "BucketEncryption",
        ("Get", "Put", "Delete"),
        member="ServerSideEncryptionConfiguration",
        initial_value={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}]
        },
        missing_error=("ServerSideEncryptionConfigurationNotFoundError", "server side encryption configuration"),
    ),
    Setting(
        "PublicAccessBlock",
        ("Get", "Put", "Delete"),
        member="PublicAccessBlockConfiguration",
        initial_value=dict.fromkeys(
            ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
        ),
        missing_error=("NoSuchPublicAccessBlockConfiguration", "public access block configuration"),
    ),
    Setting(
        "BucketOwnershipControls",
        ("Get", "Put", "Delete"),
        member="OwnershipControls",
        initial_value={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        missing_error=("OwnershipControlsNotFoundError", "ownership controls"),
    ),
    Setting("BucketTagging", READ_AND_DELETE_VERBS, missing_error=("NoSuchTagSet", "tags")),
    Setting("BucketVersioning", READ_VERBS, initial_value={}),
    Setting("BucketCors", READ_AND_DELETE_VERBS, missing_error=("NoSuchCORSConfiguration", "CORS configuration")),
    Setting(
        "BucketLifecycleConfiguration",
        READ_VERBS,
        missing_error=("NoSuchLifecycleConfiguration", "lifecycle configuration"),
    ),
    Setting("BucketLifecycle", DELETE_VERBS),
    Setting("BucketPolicy", DELETE_VERBS),
    Setting(
        "BucketReplication",
        READ_AND_DELETE_VERBS,
        missing_error=("ReplicationConfigurationNotFoundError", "replication configuration"),
    ),
    Setting(
        "BucketWebsite", READ_AND_DELETE_VERBS, missing_error=("NoSuchWebsiteConfiguration", "website configuration")
    ),
    Setting(
        "ObjectLockConfiguration",
        READ_VERBS,
        missing_error=("ObjectLockConfigurationNotFoundError", "object lock configuration"),
    ),
    Setting("BucketLogging", READ_VERBS, initial_value={}),
    Setting("BucketNotificationConfiguration", READ_VERBS, initial_value={}),
    Setting("BucketAccelerateConfiguration", READ_VERBS, initial_value={}),
    Setting("BucketRequestPayment", READ_VERBS, initial_value={"Payer": "BucketOwner"}),
)


def put_tags(call: Call) -> OperationResult:
    call.store.check_bucket(call.bucket)
    tags = {tag["Key"]: tag["Value"] for tag in call.members["Tagging"]["TagSet"]}
    if len(tags) < len(call.members["Tagging"]["TagSet"]):
        raise ServiceError("InvalidTag", "Cannot provide multiple Tags with the same key")
    write_setting(call, "BucketTagging", json.dumps({"TagSet": [{"Key": key, "Value": tags[key]} for key in tags]}))
    return OperationResult(status=204)


def put_versioning(call: Call) -> OperationResult:
    write_setting(call, "BucketVersioning", json.dumps(call.members["VersioningConfiguration"]))
    return OperationResult()


# --- policies, whose documents are JSON ---

POLICY_SETTING = "BucketPolicy"
MAX_POLICY_BYTES = 20 << 10


def get_policy(call: Call) -> OperationResult:
    return OperationResult(body=[_read_policy(call).encode()], headers={"Content-Type": "application/json"})


def _read_policy(call: Call) -> str:
    text = read_setting(call, POLICY_SETTING)
    if text is None or text == DELETED_VALUE:
        raise ServiceError("NoSuchBucketPolicy", "The bucket policy does not exist", 404)
    return text


def get_policy_status(call: Call) -> OperationResult:
    """Report that a bucket is not public: the server requires the home's credentials, whatever the policy allows."""
    _read_policy(call)
    return OperationResult({"PolicyStatus": {"IsPublic": False}})


def put_policy(call: Call) -> OperationResult:
    call.store.check_bucket(call.bucket)
    document: str = call.members["Policy"]
    try:
        if len(document.encode()) > MAX_POLICY_BYTES or not isinstance(json.loads(document), dict):
            raise ValueError(f"it must be an object of at most {MAX_POLICY_BYTES} bytes")
    except (ValueError, RecursionError) as error:
        raise ServiceError("MalformedPolicy", f"The policy is not valid: {error}.") from error
    write_setting(call, POLICY_SETTING, document)
    return OperationResult(status=204)


# --- access control lists ---

ACL = {
    "Owner": OWNER,
    "Grants": [{"Grantee": {"Type": "CanonicalUser", **OWNER}, "Permission": "FULL_CONTROL"}],
}
"""The access control list of all buckets and objects: the owner has full control."""


def get_acl(call: Call) -> OperationResult:
    _check_exists(call)
    return OperationResult(ACL)


def put_acl(call: Call) -> OperationResult:
    """Change nothing: the only accepted list is `ACL`."""
    _check_exists(call)
    return OperationResult()


def _check_exists(call: Call) -> None:
    """Check that the bucket exists, and the object if the request has a key.

    Raises ServiceError NoSuchBucket or NoSuchKey, 404.
    """
    call.store.check_bucket(call.bucket)
    if "Key" in call.members:
        call.store.get(call.bucket, call.key)


OPERATIONS: Mapping[str, Operation] = {
    **{name: operation for setting in SETTINGS for name, operation in setting.list_operations().items()},
    "PutBucketTagging": put_tags,
    "PutBucketVersioning": put_versioning,
    "GetBucketPolicy": get_policy,
    "GetBucketPolicyStatus": get_policy_status,
    "PutBucketPolicy": put_policy,
    **dict.fromkeys(("GetBucketAcl", "GetObjectAcl"), get_acl),
    **dict.fromkeys(("PutBucketAcl", "PutObjectAcl"), put_acl),
}
