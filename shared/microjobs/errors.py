"""Why a job ends badly, and with which exit code.

The exit code tells whose turn it is: the user's (2), the platform's (3), or ours (1, any other exception).
A job that is stopped by a signal ends with 128 + the signal's number, as a shell reports it. A training job ends with
0: it has saved what it had, and goes on when it is started again.
"""

import errno
import os
import traceback

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USER = 2
EXIT_PLATFORM = 3


class JobError(Exception):
    """A failure whose message is the whole story: what, which value, what to do. No traceback is logged."""

    exit_code = EXIT_BUG


class UserError(JobError):
    """The input is wrong: data, hyperparameters, arguments. Running it again unchanged fails again."""

    exit_code = EXIT_USER


class PlatformError(JobError):
    """The surroundings failed: a host that is lost, a full disk. Running it again may succeed."""

    exit_code = EXIT_PLATFORM


class Stopped(BaseException):
    """SIGTERM or SIGINT arrived. A `BaseException`, so that `except Exception` in a job does not swallow it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class ScriptStopped(Stopped):
    """The user's own training script ended with an error after the signal: what it had may be lost."""


def code_and_reason(error: BaseException) -> tuple[int, str]:
    """Return the exit code of an error, and its reason. The reason of an unexpected error includes the traceback."""
    if isinstance(error, JobError):
        return error.exit_code, str(error)
    if full := _full_disk(error):
        what = full.filename or "output"
        return EXIT_PLATFORM, f"no space left on the device while writing {what}: give the job a larger volume"
    if isinstance(error, OSError) and error.errno in (errno.EIO, errno.EROFS, errno.ESTALE):
        what = error.filename or "input or output"
        return EXIT_PLATFORM, f"{error.strerror}: {what}; look at how it is mounted"
    if isinstance(error, PermissionError):
        return EXIT_USER, f"no permission for {error.filename}: mount it so that uid {os.getuid()} may use it"
    return EXIT_BUG, f"{type(error).__name__}: {error}\n{''.join(traceback.format_exception(error))}"


def _full_disk(error: BaseException | None) -> OSError | None:
    """What the system said when a disk was full; libraries fail again over what they could not finish."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return error
        if os.strerror(errno.ENOSPC) in str(error):  # TensorFlow has errors of its own
            return OSError(errno.ENOSPC, str(error))
        error = error.__cause__ or error.__context__
    return None
