"""Why a request is not from whom it should be, in the words of each protocol."""

from typing import Literal

from microjobs_orchestrator.local.errors import ServiceError

REMEDY = 'take this server\'s credentials: eval "$(microjobs local env)"'

Kind = Literal["json", "query", "s3"]
Fault = Literal["missing", "malformed", "key", "token", "signature", "time", "expired", "session", "payload"]

CODES: dict[Fault, dict[Kind, str]] = {
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
"""Each protocol has words of its own for the same fault."""


class AuthError(Exception):
    """A request that is not from who it should be."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault

    def worded(self, kind: Kind) -> ServiceError:
        """The error as a protocol has it."""
        return ServiceError(CODES[self.fault][kind], str(self), 403)
