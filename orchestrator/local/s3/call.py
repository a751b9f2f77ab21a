"""What every operation gets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.identity import ACCOUNT
from microjobs_orchestrator.local.protocols.answer import Answer
from microjobs_orchestrator.local.s3.body import Body
from microjobs_orchestrator.local.s3.reader import no_such_bucket
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.s3.uploads import Uploads

OWNER = {"ID": ACCOUNT, "DisplayName": "microjobs"}


@dataclass(frozen=True)
class Call:
    """One request for an operation."""

    store: ObjectStore
    uploads: Uploads
    region: str
    members: Mapping[str, Any]
    body: Body

    @property
    def bucket(self) -> str:
        bucket: str = self.members["Bucket"]
        return bucket

    @property
    def key(self) -> str:
        key: str = self.members["Key"]
        return key

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


Operation = Callable[[Call], Answer]


def check_owner(members: Mapping[str, Any]) -> None:
    """Check who the client says that the buckets belong to.

    Raises:
        ServiceError: AccessDenied 403; it is another account.
    """
    for member in ("ExpectedBucketOwner", "ExpectedSourceBucketOwner"):
        if members.get(member, ACCOUNT) != ACCOUNT:
            raise ServiceError(
                "AccessDenied", f"{member} is {members[member]!r}; buckets here belong to {ACCOUNT}.", 403
            )
