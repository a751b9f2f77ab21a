"""Errors of requests without a valid signature, under the names that each protocol has for them."""

from typing import Literal

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.protocol import ErrorStyle

REMEDY = 'take this server\'s credentials: eval "$(microjobs local env)"'

Fault = Literal["missing", "malformed", "key", "token", "signature", "time", "expired", "session", "payload"]

CODES: dict[Fault, dict[ErrorStyle, str]] = {
    "missing": {
        "json": "MissingAuthenticationTokenException",
        "query": "MissingAuthenticationToken",
        "s3": "AccessDenied",
    },
    "malformed": {
        "json": "IncompleteSignatureException",
        "query": "IncompleteSignature",
        "s3": "AuthorizationHeaderMalformed",
    },
    "key": {"json": "UnrecognizedClientException", "query": "InvalidClientTokenId", "s3": "InvalidAccessKeyId"},
    "token": {"json": "UnrecognizedClientException", "query": "InvalidClientTokenId", "s3": "InvalidToken"},
    "signature": {"json": "InvalidSignatureException", "query": "SignatureDoesNotMatch", "s3": "SignatureDoesNotMatch"},
    "time": {"json": "RequestTimeTooSkewed", "query": "RequestTimeTooSkewed", "s3": "RequestTimeTooSkewed"},
    "expired": {"json": "ExpiredTokenException", "query": "ExpiredToken", "s3": "AccessDenied"},
    "session": {"json": "ExpiredTokenException", "query": "ExpiredToken", "s3": "ExpiredToken"},
    "payload": {
        "json": "InvalidSignatureException",
        "query": "SignatureDoesNotMatch",
        "s3": "XAmzContentSHA256Mismatch",
    },
}
"""Error codes by fault and protocol."""


class AuthError(Exception):
    """A request whose sender is not proven."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault

    def to_service_error(self, style: ErrorStyle) -> ServiceError:
        """Return the error under the name that a protocol has for it."""
        return ServiceError(CODES[self.fault][style], str(self), 403)
