"""Conditions of requests, such as If-Match."""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.s3.details import Details
from microjobs_orchestrator.local.s3.reader import StoredObject
from microjobs_orchestrator.local.s3.store import Condition


def check_read(members: Mapping[str, Any], stored_object: StoredObject, details: Details, prefix: str = "") -> None:
    """Check the conditions of a request that reads an object. Raises ServiceError PreconditionFailed or NotModified.

    If-Match takes precedence over If-Unmodified-Since, and If-None-Match over If-Modified-Since:
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html

    Args:
        prefix: `CopySource` for the source of a copy, which never raises NotModified; empty for other requests.
    """
    condition = _find_false_condition(members, stored_object, details, prefix)
    if condition in ("IfNoneMatch", "IfModifiedSince") and not prefix:
        raise ServiceError("NotModified", "Not Modified", 304)
    if condition:
        raise _make_precondition_error(condition)


def make_write_condition(members: Mapping[str, Any]) -> Condition | None:
    """Return the check of `If-None-Match: *` and If-Match for a write or a deletion; None without conditions."""
    none_match, match = members.get("IfNoneMatch"), members.get("IfMatch")
    if none_match is not None and none_match != "*":
        raise ServiceError("NotImplemented", f"If-None-Match is {none_match!r}; only * is supported for writes.", 501)
    if none_match is None and match is None:
        return None

    def check(details: Details | None) -> None:
        if none_match is not None and details is not None:
            raise _make_precondition_error("If-None-Match")
        if match is not None and details is None:
            raise ServiceError("NoSuchKey", "The specified key does not exist, so If-Match fails.", 404)
        if match is not None and details is not None and not _matches(match, details.etag):
            raise _make_precondition_error("If-Match")

    return check


def _find_false_condition(
    members: Mapping[str, Any], stored_object: StoredObject, details: Details, prefix: str
) -> str | None:
    match, none_match = members.get(f"{prefix}IfMatch"), members.get(f"{prefix}IfNoneMatch")
    unmodified, modified = members.get(f"{prefix}IfUnmodifiedSince"), members.get(f"{prefix}IfModifiedSince")
    if match is not None and not _matches(match, details.etag):
        return "IfMatch"
    if match is None and unmodified is not None and _has_changed_since(stored_object, unmodified):
        return "IfUnmodifiedSince"
    if none_match is not None and _matches(none_match, details.etag):
        return "IfNoneMatch"
    if none_match is None and modified is not None and not _has_changed_since(stored_object, modified):
        return "IfModifiedSince"
    return None


def _matches(condition: str, etag: str) -> bool:
    return condition == "*" or etag in (item.strip().removeprefix("W/").strip('"') for item in condition.split(","))


def _has_changed_since(stored_object: StoredObject, seconds: float) -> bool:
    return int(stored_object.modification_time) > seconds  # the header Last-Modified has whole seconds


def _make_precondition_error(condition: str) -> ServiceError:
    message = f"At least one of the pre-conditions you specified did not hold: {condition}."
    return ServiceError("PreconditionFailed", message, 412)
