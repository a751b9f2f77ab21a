"""Errors that the user can fix. Commands print their messages, without a traceback."""


class LauncherError(Exception):
    """An error that the user can fix. The message states what failed, with which value, and how to fix it."""

    exit_code = 1


class UsageError(LauncherError):
    """A wrong argument, or arguments that exclude each other."""

    exit_code = 2


class JobFailedError(LauncherError):
    """A job did not complete, or an endpoint did not come into service. `tail` has the last lines of its log."""

    def __init__(self, step: str, name: str, status: str, reason: str, tail: tuple[str, ...] = ()) -> None:
        super().__init__(f"{step} ({name}) is {status}: {reason}")
        self.tail = tail
