"""An error as AWS words it; each protocol writes it in its own form."""

import errno
import sqlite3
from collections.abc import Mapping


class ServiceError(Exception):
    """Error that a client receives instead of a result.

    Args:
        code: AWS's name for the error, such as `ValidationException`.
        message: what failed, with which value, and how to fix it.
        status: HTTP status.
        members: what the model gives this error beyond a message.
    """

    def __init__(self, code: str, message: str, status: int = 400, members: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.members = members or {}


class ValidationError(ServiceError):
    """SageMaker's answer to a wrong request, and to one that names something that is not there."""

    def __init__(self, message: str) -> None:
        super().__init__("ValidationException", message)


class ResourceInUseError(ServiceError):
    """The name is taken, or the thing is busy."""

    def __init__(self, message: str) -> None:
        super().__init__("ResourceInUse", message)


class ResourceNotFoundError(ServiceError):
    """CloudWatch Logs' and some SageMaker operations' word for something that is not there."""

    def __init__(self, message: str) -> None:
        super().__init__("ResourceNotFoundException", message)


def is_full(error: Exception) -> bool:
    """Whether something could not be written because the device has no space left."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def full() -> ServiceError:
    """The answer to a request for which there is no space; HTTP has a status for it, AWS no word."""
    return ServiceError("InsufficientStorage", "no space left on the device of the server's folder: free some", 507)
