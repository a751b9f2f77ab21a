"""Which names a bucket and a key may have, and why a folder cannot hold some keys."""

import ipaddress
import re
from pathlib import Path

from microjobs_orchestrator.local.errors import ServiceError

MAX_KEY_BYTES = 1024
"""Bytes of UTF-8, as on AWS."""

MAX_SEGMENT_BYTES = 255
"""Bytes between two slashes: what file systems hold."""

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_RESERVED_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


def parse_uri(uri: str) -> tuple[str, str]:
    """The bucket and the key (or key prefix, maybe empty) of `s3://bucket/key`.

    Raises:
        ServiceError: ValidationException; it is not such a URI.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not is_bucket_name(bucket):
        raise ServiceError("ValidationException", f"{uri!r} is not an S3 URI: write s3://bucket/prefix.")
    return bucket, key


def is_bucket_name(name: str) -> bool:
    if not _BUCKET.fullmatch(name) or ".." in name:
        return False
    if name.startswith(_RESERVED_PREFIXES) or name.endswith(_RESERVED_SUFFIXES):
        return False
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return True
    return False


def check_bucket_name(name: str) -> None:
    """Raises ServiceError InvalidBucketName, 400."""
    if not is_bucket_name(name):
        raise ServiceError(
            "InvalidBucketName",
            f"The specified bucket is not valid: {name!r}. Use 3 to 63 lower case letters, digits, dots and hyphens, "
            "a letter or digit at both ends, and none of AWS's reserved prefixes and suffixes.",
        )


def is_folder_marker(key: str) -> bool:
    """Consoles make an empty object `folder/` to show an empty folder."""
    return key.endswith("/")


def relative_path(key: str) -> Path:
    """The path of a key's file below its bucket's folder; of a marker `folder/`, its folder's.

    Raises:
        ServiceError: KeyTooLongError or InvalidArgument, 400; the key is not S3's, or no folder can hold it.
    """
    segments = key.removesuffix("/").split("/")
    lengths = [len(_utf8(key, segment)) for segment in segments]
    if len(_utf8(key, key)) > MAX_KEY_BYTES:
        raise ServiceError("KeyTooLongError", f"Your key is too long: {key!r} has more than {MAX_KEY_BYTES} bytes.")
    if max(lengths) > MAX_SEGMENT_BYTES:
        raise ServiceError(
            "KeyTooLongError",
            f"Objects are files here, and the key {key!r} has more than {MAX_SEGMENT_BYTES} bytes between two slashes.",
        )
    if "" in segments:
        raise cannot_hold(key, "it is empty, starts with a slash, or has two slashes in a row")
    if "." in segments or ".." in segments:
        raise cannot_hold(key, "it has a segment '.' or '..'")
    if "\0" in key:
        raise cannot_hold(key, "it has a NUL character")
    return Path(*segments)


def cannot_hold(key: str, reason: str) -> ServiceError:
    return ServiceError("InvalidArgument", f"Objects are files here, and none can have the key {key!r}: {reason}.")


def _utf8(key: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise cannot_hold(key, "it is not UTF-8") from None
