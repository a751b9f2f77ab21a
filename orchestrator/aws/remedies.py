"""Remedies for errors of boto3."""

from botocore import exceptions

NO_CREDENTIALS_ERRORS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.NoAuthTokenError,
    exceptions.TokenRetrievalError,
    exceptions.SSOError,
    exceptions.MetadataRetrievalError,
)
REFUSED_CREDENTIALS_CODES = (
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)
DENIED_CODES = ("AccessDenied", "AccessDeniedException", "AllAccessDisabled", "UnauthorizedOperation", "403")
WRONG_FILE_ERRORS = (
    exceptions.ConfigParseError,
    exceptions.ConfigNotFound,
    exceptions.InvalidConfigError,
    exceptions.InfiniteLoopConfigError,
)
UNREACHABLE_ERRORS = (
    exceptions.EndpointConnectionError,
    exceptions.ConnectTimeoutError,
    exceptions.ProxyConnectionError,
)


def format_login_commands(profile: str = "") -> str:
    """Return the commands that set up credentials, as a part of a message."""
    option = f" --profile {profile}" if profile else ""
    return f"`aws sso login{option}`, or `aws configure{option}`"


def find_remedy(error: Exception, profile: str = "") -> str:
    """Return the remedy for an error of boto3, or an empty string if none is known."""
    if isinstance(error, exceptions.ClientError):
        return _find_remedy_for_code(str(error.response["Error"].get("Code")), profile)
    if isinstance(error, NO_CREDENTIALS_ERRORS):
        return format_login_commands(profile)
    if isinstance(error, exceptions.ProfileNotFound):
        return "`aws configure list-profiles` lists the profiles"
    if isinstance(error, exceptions.NoRegionError):
        return "set --region, `region` in [aws] of microjobs.toml, or AWS_DEFAULT_REGION"
    if isinstance(error, WRONG_FILE_ERRORS):
        return "correct ~/.aws/config and ~/.aws/credentials, or choose another --profile"
    if isinstance(error, UNREACHABLE_ERRORS):
        return "check the network, the proxy, and that the region exists"
    return ""


def _find_remedy_for_code(code: str, profile: str) -> str:
    if code in REFUSED_CREDENTIALS_CODES:
        return format_login_commands(profile)
    return "`microjobs doctor --on aws` shows what these credentials may do" if code in DENIED_CODES else ""
