"""Why a job ends badly, and with which exit code.

The exit code tells whose turn it is: the user's (2), the platform's (3), or ours (1, any other exception).
A job that is stopped by a signal ends with 128 + the signal's number, as a shell reports it. A training job ends with
0: it has saved what it had, and goes on when it is started again.
"""

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
