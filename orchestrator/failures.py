"""Errors that the user can fix. Commands print their messages, without a traceback."""


class CommandError(Exception):
    """An error that the user can fix. A command prints the message: what failed, with which value, and the remedy."""

    exit_code = 1


class UsageError(CommandError):
    """A wrong argument, or arguments that exclude each other."""

    exit_code = 2


class JobFailedError(CommandError):
    """A job did not complete, or an endpoint did not come into service. `last_log_lines` is the end of its log."""

    def __init__(self, step: str, name: str, status: str, reason: str, last_log_lines: tuple[str, ...] = ()) -> None:
        super().__init__(f"{step} ({name}) is {status}: {reason}")
        self.last_log_lines = last_log_lines
