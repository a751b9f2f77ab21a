"""Rules for bucket names and keys, and the path of each key's file."""

import ipaddress
import re
from pathlib import Path

from microjobs_orchestrator.local.errors import ServiceError

MAX_KEY_BYTES = 1024
"""Maximum size of a key in bytes of UTF-8, as on AWS."""

MAX_SEGMENT_BYTES = 255
"""Maximum size of a key's part between two slashes: the limit of file systems for one file name."""

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET_NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_RESERVED_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


def parse_uri(uri: str) -> tuple[str, str]:
    """Return the bucket of an S3 URI, and the rest, which is a key, a prefix or empty. Raises ServiceError
    ValidationException if the text is not such a URI."""
    scheme, _, bucket_and_key = uri.partition("://")
    bucket, _, key = bucket_and_key.partition("/")
    if scheme != "s3" or not is_bucket_name(bucket):
        raise ServiceError("ValidationException", f"{uri!r} is not an S3 URI: use the form s3://bucket/prefix.")
    return bucket, key


def is_bucket_name(name: str) -> bool:
    if not _BUCKET_NAME_PATTERN.fullmatch(name) or ".." in name:
        return False
    if name.startswith(_RESERVED_PREFIXES) or name.endswith(_RESERVED_SUFFIXES):
        return False
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return True
    return False


def is_folder_marker(key: str) -> bool:
    """Return whether a key names a folder marker: consoles store an empty object `folder/` for an empty folder."""
    return key.endswith("/")


def get_relative_path(key: str) -> Path:
    """Return the path of a key's file below its bucket's folder. A marker `folder/` has the path of its folder.

    Raises ServiceError KeyTooLongError or InvalidArgument if the key is not valid on S3, or no file can have it.
    """
    segments = key.removesuffix("/").split("/")
    try:
        size, longest = len(key.encode()), max(len(segment.encode()) for segment in segments)
    except UnicodeEncodeError:
        raise make_invalid_key_error(key, "it is not UTF-8") from None
    if size > MAX_KEY_BYTES:
        raise ServiceError("KeyTooLongError", f"Your key is too long: {key!r} has more than {MAX_KEY_BYTES} bytes.")
    if longest > MAX_SEGMENT_BYTES:
        message = f"Objects are files on this server: {key!r} has over {MAX_SEGMENT_BYTES} bytes between two slashes."
        raise ServiceError("KeyTooLongError", message)
    if "" in segments:
        raise make_invalid_key_error(key, "it is empty, starts with a slash, or has two slashes in a row")
    if "." in segments or ".." in segments:
        raise make_invalid_key_error(key, "it has a segment '.' or '..'")
    if "\0" in key:
        raise make_invalid_key_error(key, "it has a NUL character")
    return Path(*segments)


def make_invalid_key_error(key: str, reason: str) -> ServiceError:
    message = f"Objects are files on this server, and no file can have the key {key!r}: {reason}."
    return ServiceError("InvalidArgument", message)
