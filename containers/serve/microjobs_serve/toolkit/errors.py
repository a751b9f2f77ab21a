"""Errors of the convention. Users' code raises them; their statuses reach the client."""

from ..answers import Problem


class UnsupportedFormatError(Exception):
    """A content type has no decoder or no encoder."""

    def __init__(self, content_type: object, **_: object) -> None:
        self._message = f"Content type {content_type} is not supported by this framework."
        super().__init__(self._message)


class BaseInferenceToolkitError(Exception):
    """A failure whose status and message users' code chooses."""

    def __init__(self, status_code: int, message: str, phrase: str) -> None:
        self.status_code = status_code
        self.message = message
        self.phrase = phrase
        super().__init__(status_code, message, phrase)


class GenericInferenceToolkitError(BaseInferenceToolkitError):
    """A failure with a default message."""

    def __init__(self, status_code: int, message: str | None = None, phrase: str | None = None) -> None:
        message = message or "Invalid Request"
        super().__init__(status_code, message, phrase or message)


class MalformedBodyError(Problem, ValueError):
    """A request's body is not of its content type. The package raises ValueError, which becomes status 500."""

    def __init__(self, sentence: str) -> None:
        super().__init__(400, sentence)
