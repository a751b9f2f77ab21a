"""Settings of buckets. A new bucket has the settings of a new bucket on AWS.

Settings are stored and described. Settings that would change the server's behaviour (versioning, expiry, replication …)
are refused.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.answer import Answer
from microjobs_orchestrator.local.s3.call import OWNER, Call, Operation

DELETED = "null"
"""The stored value of a setting that was deleted."""


@dataclass(frozen=True)
class Setting:
    """A setting that buckets can have."""

    name: str
    """The name in operations, such as `BucketEncryption` in GetBucketEncryption."""
    member: str = ""
    """The request's member with the setting; empty if it cannot be set."""
    initial: Mapping[str, Any] | None = None
    """The setting of a new bucket; None: Get returns the error `missing`."""
    missing: tuple[str, str] = ("", "")
    """The error's code, and the name of the setting in its message."""
    answered: str = ""
    """The response's member with the setting; empty: the members of the response are those of the setting."""
    verbs: tuple[str, ...] = field(default=("Get", "Put", "Delete"))

    def operations(self) -> dict[str, Operation]:
        functions: dict[str, Operation] = {"Get": self.get, "Put": self.put, "Delete": self.delete}
        return {f"{verb}{self.name}": functions[verb] for verb in self.verbs}

    def get(self, call: Call) -> Answer:
        call.check_bucket()
        text = read(call, self.name)
        value = self.initial if text is None else json.loads(text)
        if value is None:
            code, what = self.missing
            raise ServiceError(code, f"The bucket {call.bucket!r} has no {what}.", 404)
        return Answer({self.answered: value} if self.answered else value)

    def put(self, call: Call) -> Answer:
        call.check_bucket()
        write(call, self.name, json.dumps(call.members[self.member]))
        return Answer()

    def delete(self, call: Call) -> Answer:
        call.check_bucket()
        write(call, self.name, DELETED)
        return Answer()


def read(call: Call, name: str) -> str | None:
    statement = "SELECT value FROM bucket_settings WHERE bucket = ? AND name = ?"
    rows = call.store.database.select(statement, (call.bucket, name))
    return rows[0][0] if rows else None


def write(call: Call, name: str, value: str) -> None:
    call.store.database.change("INSERT OR REPLACE INTO bucket_settings VALUES (?, ?, ?)", (call.bucket, name, value))


def forget(call: Call) -> None:
    """Delete the settings of a deleted bucket."""
    call.store.database.change("DELETE FROM bucket_settings WHERE bucket = ?", (call.bucket,))


READ = ("Get",)
READ_OR_DELETE = ("Get", "Delete")

SETTINGS = (
    Setting(
        "BucketEncryption",
        "ServerSideEncryptionConfiguration",
        {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}]},
        ("ServerSideEncryptionConfigurationNotFoundError", "server side encryption configuration"),
        "ServerSideEncryptionConfiguration",
    ),
    Setting(
        "PublicAccessBlock",
        "PublicAccessBlockConfiguration",
        dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True),
        ("NoSuchPublicAccessBlockConfiguration", "public access block configuration"),
        "PublicAccessBlockConfiguration",
    ),
    Setting(
        "BucketOwnershipControls",
        "OwnershipControls",
        {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        ("OwnershipControlsNotFoundError", "ownership controls"),
        "OwnershipControls",
    ),
    Setting("BucketTagging", missing=("NoSuchTagSet", "tags"), verbs=READ_OR_DELETE),
    Setting("BucketVersioning", "VersioningConfiguration", {}, verbs=("Get", "Put")),
    Setting("BucketCors", missing=("NoSuchCORSConfiguration", "CORS configuration"), verbs=READ_OR_DELETE),
    Setting(
        "BucketLifecycleConfiguration",
        missing=("NoSuchLifecycleConfiguration", "lifecycle configuration"),
        verbs=READ,
    ),
    Setting("BucketLifecycle", verbs=("Delete",)),
    Setting(
        "BucketReplication",
        missing=("ReplicationConfigurationNotFoundError", "replication configuration"),
        verbs=READ_OR_DELETE,
    ),
    Setting("BucketWebsite", missing=("NoSuchWebsiteConfiguration", "website configuration"), verbs=READ_OR_DELETE),
    Setting(
        "ObjectLockConfiguration",
        missing=("ObjectLockConfigurationNotFoundError", "object lock configuration"),
        verbs=READ,
    ),
    Setting("BucketLogging", initial={}, verbs=READ),
    Setting("BucketNotificationConfiguration", initial={}, verbs=READ),
    Setting("BucketAccelerateConfiguration", initial={}, verbs=READ),
    Setting("BucketRequestPayment", initial={"Payer": "BucketOwner"}, verbs=READ),
)

# --- tags ---


def put_tags(call: Call) -> Answer:
    call.check_bucket()
    tags = {tag["Key"]: tag["Value"] for tag in call.members["Tagging"]["TagSet"]}
    if len(tags) < len(call.members["Tagging"]["TagSet"]):
        raise ServiceError("InvalidTag", "Cannot provide multiple Tags with the same key")
    write(call, "BucketTagging", json.dumps({"TagSet": [{"Key": key, "Value": tags[key]} for key in tags]}))
    return Answer(status=204)


# --- policies, whose documents are JSON ---

POLICY = "BucketPolicy"
POLICY_BYTES = 20 << 10


def get_policy(call: Call) -> Answer:
    return Answer(body=[_policy(call).encode()], headers={"Content-Type": "application/json"})


def _policy(call: Call) -> str:
    call.check_bucket()
    text = read(call, POLICY)
    if text is None or text == DELETED:
        raise ServiceError("NoSuchBucketPolicy", "The bucket policy does not exist", 404)
    return text


def get_policy_status(call: Call) -> Answer:
    """Return that a bucket is not public: the server requires its credentials, whatever the policy allows."""
    _policy(call)
    return Answer({"PolicyStatus": {"IsPublic": False}})


def put_policy(call: Call) -> Answer:
    call.check_bucket()
    document: str = call.members["Policy"]
    try:
        if len(document.encode()) > POLICY_BYTES or not isinstance(json.loads(document), dict):
            raise ValueError(f"it must be an object of at most {POLICY_BYTES} bytes")
    except (ValueError, RecursionError) as error:
        raise ServiceError("MalformedPolicy", f"The policy is not valid: {error}.") from error
    write(call, POLICY, document)
    return Answer(status=204)


def delete_policy(call: Call) -> Answer:
    call.check_bucket()
    write(call, POLICY, DELETED)
    return Answer()


# --- access control lists ---

ACL = {
    "Owner": OWNER,
    "Grants": [{"Grantee": {"Type": "CanonicalUser", **OWNER}, "Permission": "FULL_CONTROL"}],
}
"""The access control list of all buckets and objects: the owner has full control."""


def get_bucket_acl(call: Call) -> Answer:
    call.check_bucket()
    return Answer(ACL)


def put_bucket_acl(call: Call) -> Answer:
    """Change nothing: the only accepted list is the bucket's."""
    call.check_bucket()
    return Answer()


def get_object_acl(call: Call) -> Answer:
    call.store.open(call.bucket, call.key).file.close()
    return Answer(ACL)


def put_object_acl(call: Call) -> Answer:
    call.store.open(call.bucket, call.key).file.close()
    return Answer()


OPERATIONS: Mapping[str, Callable[[Call], Answer]] = {
    **{name: operation for setting in SETTINGS for name, operation in setting.operations().items()},
    "PutBucketTagging": put_tags,
    "GetBucketPolicy": get_policy,
    "GetBucketPolicyStatus": get_policy_status,
    "PutBucketPolicy": put_policy,
    "DeleteBucketPolicy": delete_policy,
    "GetBucketAcl": get_bucket_acl,
    "PutBucketAcl": put_bucket_acl,
    "GetObjectAcl": get_object_acl,
    "PutObjectAcl": put_object_acl,
}
