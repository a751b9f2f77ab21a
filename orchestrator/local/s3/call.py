"""The request that each operation of S3 receives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.identity import ACCOUNT
from microjobs_orchestrator.local.protocols.results import OperationResult
from microjobs_orchestrator.local.s3.body import Body
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
    """Members of the request, as botocore's model names them."""
    body: Body

    @property
    def bucket(self) -> str:
        return str(self.members["Bucket"])

    @property
    def key(self) -> str:
        return str(self.members["Key"])

    def encode_key(self, text: str) -> str:
        """Return a key for a listing: percent-encoded if the request has the EncodingType `url`."""
        return quote(text, safe="/") if self.members.get("EncodingType") == "url" else text

    def get_page_limit(self, member: str, maximum: int = 1000) -> int:
        """Return the maximum number of entries of a page. Raise ServiceError InvalidArgument for a negative number."""
        requested: int = self.members.get(member, maximum)
        if requested < 0:
            raise ServiceError("InvalidArgument", f"{member} is {requested}; it cannot be negative.")
        return min(requested, maximum)


Operation = Callable[[Call], OperationResult]


def check_owner(members: Mapping[str, Any]) -> None:
    """Raise ServiceError AccessDenied 403 if the client expects another account to own the buckets."""
    for member in ("ExpectedBucketOwner", "ExpectedSourceBucketOwner"):
        if members.get(member, ACCOUNT) != ACCOUNT:
            message = f"{member} is {members[member]!r}; the local server's buckets belong to {ACCOUNT}."
            raise ServiceError("AccessDenied", message, 403)
