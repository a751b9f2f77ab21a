"""Failures that a user can do something about: one sentence, no traceback."""


class LauncherError(Exception):
    """Its message says what failed, with which value, and what to do."""

    exit_code = 1


class UsageError(LauncherError):
    """What was asked for cannot be: an argument is wrong, or two do not go together."""

    exit_code = 2


class JobFailedError(LauncherError):
    """A job or an endpoint ended otherwise than it should.

    Args:
        step: the workflow's title of it.
        name: the job's name.
        status: such as `Failed`.
        reason: its FailureReason.
        tail: the last lines of its log.
    """

    def __init__(self, step: str, name: str, status: str, reason: str, tail: tuple[str, ...] = ()) -> None:
        super().__init__(f"{step} ({name}) is {status}: {reason}")
        self.name = name
        self.tail = tail
