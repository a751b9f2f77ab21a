"""Errors that end a job, and their exit codes.

The exit code shows who must act: the user (2), the platform (3), or the developers of the job (1, any other exception).
A stopped training job ends with 0, because it has saved its work and can resume. A stopped server of predictions also
ends with 0. Other stopped jobs, and training jobs whose script fails after the signal, end with 128 + the number of the
signal.
"""

import errno
import os
import traceback

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USER = 2
EXIT_PLATFORM = 3

FULL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers for a full disk and an exceeded quota."""


class JobError(Exception):
    """An error whose message states the problem, the wrong value and the remedy, so no traceback is logged."""

    exit_code = EXIT_BUG


class UserError(JobError):
    """The data, hyperparameters or arguments are invalid. The same job would fail again."""

    exit_code = EXIT_USER


class PlatformError(JobError):
    """The platform failed: for example, a host was lost, or the disk is full. The same job may succeed."""

    exit_code = EXIT_PLATFORM


class Stopped(BaseException):
    """SIGTERM or SIGINT arrived. This is a `BaseException`, so that `except Exception` in a job does not catch it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class ScriptFailedAfterStop(Stopped):
    """The user's script failed after the stop signal, so its work may be lost."""


def explain_error(error: BaseException) -> tuple[int, str]:
    """Return the exit code of an error, and its reason. The reason of an unexpected error includes the traceback."""
    if isinstance(error, JobError):
        return error.exit_code, str(error)
    if disk_error := _find_disk_error(error):
        path = disk_error.filename or "output"
        return EXIT_PLATFORM, f"no space left on the device while writing {path}: give the job a larger volume"
    if isinstance(error, OSError) and error.errno in (errno.EIO, errno.EROFS, errno.ESTALE):
        path = error.filename or "input or output"
        return EXIT_PLATFORM, f"{error.strerror}: {path}; check how it is mounted"
    if isinstance(error, PermissionError):
        return EXIT_USER, f"no permission for {error.filename}: mount it with access for uid {os.getuid()}"
    return EXIT_BUG, f"{type(error).__name__}: {error}\n{''.join(traceback.format_exception(error))}"


def _find_disk_error(error: BaseException | None) -> OSError | None:
    """Return the error about a full disk that caused this error, if any."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL_DISK_ERRORS:
            return error
        # TensorFlow raises exceptions of its own, whose text contains the system's message
        if os.strerror(errno.ENOSPC) in str(error):
            return OSError(errno.ENOSPC, str(error))
        error = error.__cause__ or error.__context__
    return None
