"""Errors of operations, under AWS's names. Each protocol has its own format for them."""

import errno
import sqlite3
from collections.abc import Mapping


class ServiceError(Exception):
    """An error that a client receives instead of a result.

    Args:
        code: AWS's name for the error, such as `ValidationException`.
        message: what failed, with which value, and how to fix it.
        status: HTTP status.
        members: members of this error besides its message, as AWS's model defines them.
    """

    def __init__(self, code: str, message: str, status: int = 400, members: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.members = members or {}


class ValidationError(ServiceError):
    """SageMaker's error for an invalid request, and for a request that names a missing resource."""

    def __init__(self, message: str) -> None:
        super().__init__("ValidationException", message)


class ResourceInUseError(ServiceError):
    """The name is in use, or the resource is busy."""

    def __init__(self, message: str) -> None:
        super().__init__("ResourceInUse", message)


class ResourceNotFoundError(ServiceError):
    """The error of CloudWatch Logs, and of some SageMaker operations, for a missing resource."""

    def __init__(self, message: str) -> None:
        super().__init__("ResourceNotFoundException", message)


def is_disk_full(error: Exception) -> bool:
    """Return whether an error means that the device has no space left."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def make_disk_full_error() -> ServiceError:
    """Return the error for a request that needs more space. AWS has no name for this error; HTTP's status is 507."""
    return ServiceError(
        "InsufficientStorage", "no space left on the device of the server's folder: free disk space", 507
    )
