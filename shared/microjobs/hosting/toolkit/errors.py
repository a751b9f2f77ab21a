"""Errors of the `sagemaker-inference` convention. Users' code raises them; their statuses reach the client."""

from ..responses import HttpError


class UnsupportedFormatError(Exception):
    """A content type without a decoder or an encoder."""

    def __init__(self, content_type: object, **_: object) -> None:
        self._message = f"Content type {content_type} is not supported by this framework."
        super().__init__(self._message)


class BaseInferenceToolkitError(Exception):
    """An error with a status and a message that users' code chooses."""

    def __init__(self, status_code: int, message: str, phrase: str) -> None:
        self.status_code = status_code
        self.message = message
        self.phrase = phrase
        super().__init__(status_code, message, phrase)


class GenericInferenceToolkitError(BaseInferenceToolkitError):
    """An error with a default message."""

    def __init__(self, status_code: int, message: str | None = None, phrase: str | None = None) -> None:
        message = message or "Invalid Request"
        super().__init__(status_code, message, phrase or message)


class MalformedBodyError(HttpError, ValueError):
    """A body does not match its content type. The original package raises ValueError, which becomes status 500."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)
