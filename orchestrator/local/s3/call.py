"""What every operation gets, and what it says about itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from orchestrator.local.errors import ServiceError
from orchestrator.local.home import ACCOUNT
from orchestrator.local.s3.answer import Answer
from orchestrator.local.s3.store import ObjectStore, no_such_bucket
from orchestrator.local.s3.uploads import Uploads
from orchestrator.local.s3.wire import Incoming, Stream

ADDRESS = frozenset({"Bucket", "Key", "ExpectedBucketOwner", "ExpectedSourceBucketOwner"})
"""Honoured by every operation that has them."""

NO_MEANING = frozenset(
    {
        "BucketKeyEnabled",
        "BypassGovernanceRetention",
        "ChecksumAlgorithm",  # the checksum itself says which
        "ContentLength",  # of the body, which is counted
        "ContentMD5",  # checked with the body
        "CopySourceSSECustomerAlgorithm",
        "CopySourceSSECustomerKey",
        "CopySourceSSECustomerKeyMD5",
        "MFA",
        "ObjectOwnership",
        "OptionalObjectAttributes",
        "RequestPayer",
        "SSECustomerAlgorithm",
        "SSECustomerKey",
        "SSECustomerKeyMD5",
        "SSEKMSEncryptionContext",
        "SSEKMSKeyId",
        "ServerSideEncryption",
        "StorageClass",
    }
)
"""Accepted: there is one owner, one disk and no encryption here, so they change nothing that a client could see."""

CHECKSUMS = frozenset(
    f"Checksum{algorithm}"
    for algorithm in [
        "CRC32",
        "CRC32C",
        "CRC64NVME",
        "SHA1",
        "SHA256",
        "SHA512",
        "MD5",
        "XXHASH64",
        "XXHASH3",
        "XXHASH128",
    ]
)
"""Members whose headers are held against the body while it is read."""

OWNER = {"ID": ACCOUNT, "DisplayName": "microjobs"}

_PRIVATE = frozenset({"private", "bucket-owner-read", "bucket-owner-full-control"})


@dataclass(frozen=True)
class Call:
    """One request for an operation."""

    store: ObjectStore
    uploads: Uploads
    region: str
    incoming: Incoming
    stream: Stream
    members: Mapping[str, Any]

    @property
    def bucket(self) -> str:
        return self.incoming.bucket

    @property
    def key(self) -> str:
        return self.incoming.key

    def check_bucket(self) -> None:
        """Raises ServiceError NoSuchBucket 404."""
        if not self.store.has_bucket(self.bucket):
            raise no_such_bucket(self.bucket)

    def encode(self, text: str) -> str:
        """A key as a list has it: percent-encoded if the client asks for that."""
        return quote(text, safe="/") if self.members.get("EncodingType") == "url" else text

    def limit(self, member: str, most: int = 1000) -> int:
        """How many entries a page has at most. Raises ServiceError InvalidArgument."""
        wanted: int = self.members.get(member, most)
        if wanted < 0:
            raise ServiceError("InvalidArgument", f"{member} is {wanted}; it cannot be negative.")
        return min(wanted, most)


@dataclass(frozen=True)
class Operation:
    run: Callable[[Call], Answer]
    honoured: frozenset[str] = frozenset()
    """The members that it acts upon, besides `ADDRESS`."""


def check_members(name: str, operation: Operation, members: Mapping[str, Any]) -> None:
    """Refuse a member that would change what happens and is not supported.

    Raises:
        ServiceError: NotImplemented 501; AccessDenied 403, the bucket belongs to somebody else.
    """
    for member, value in members.items():
        if member in ("ExpectedBucketOwner", "ExpectedSourceBucketOwner") and value != ACCOUNT:
            raise ServiceError("AccessDenied", f"{member} is {value!r}; buckets here belong to {ACCOUNT}.", 403)
        harmless = (member == "ACL" and value in _PRIVATE) or (member == "VersionId" and value == "null")
        if not harmless and member not in operation.honoured | ADDRESS | NO_MEANING and value != {}:
            raise not_supported(name, member, value)


def not_supported(operation: str, member: str, value: object) -> ServiceError:
    return ServiceError("NotImplemented", f"{operation} with {member} ({value!r}) is not supported here.", 501)
