"""Operations on buckets."""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.results import OperationResult
from microjobs_orchestrator.local.s3.call import OWNER, Call, Operation


def list_buckets(call: Call) -> OperationResult:
    prefix, last_name = call.members.get("Prefix", ""), call.members.get("ContinuationToken", "")
    limit = call.get_page_limit("MaxBuckets", 10_000)
    is_own_region = call.members.get("BucketRegion", call.region) == call.region
    buckets = call.store.list_buckets() if is_own_region else {}
    summaries = [
        {"Name": name, "CreationDate": created, "BucketRegion": call.region}
        for name, created in buckets.items()
        if name.startswith(prefix) and name > last_name
    ]
    page = summaries[:limit]
    members: dict[str, Any] = {"Buckets": page, "Owner": OWNER, "Prefix": prefix or None}
    if page and len(summaries) > limit:
        members["ContinuationToken"] = page[-1]["Name"]
    return OperationResult(members)


def create_bucket(call: Call) -> OperationResult:
    region = call.members.get("CreateBucketConfiguration", {}).get("LocationConstraint", call.region)
    if region != call.region:
        message = f"LocationConstraint is {region!r}, but this server has only the region {call.region!r}."
        raise ServiceError("IllegalLocationConstraintException", message)
    call.store.create_bucket(call.bucket)
    return OperationResult({"Location": f"/{call.bucket}"})


def head_bucket(call: Call) -> OperationResult:
    call.store.check_bucket(call.bucket)
    return OperationResult({"BucketRegion": call.region})


def delete_bucket(call: Call) -> OperationResult:
    call.store.delete_bucket(call.bucket)
    for upload in call.uploads.find(call.bucket):
        call.uploads.abort(upload)
    return OperationResult()


def get_bucket_location(call: Call) -> OperationResult:
    call.store.check_bucket(call.bucket)
    # AWS returns no location for us-east-1
    return OperationResult({"LocationConstraint": None if call.region == "us-east-1" else call.region})


OPERATIONS: Mapping[str, Operation] = {
    "ListBuckets": list_buckets,
    "CreateBucket": create_bucket,
    "HeadBucket": head_bucket,
    "DeleteBucket": delete_bucket,
    "GetBucketLocation": get_bucket_location,
}
