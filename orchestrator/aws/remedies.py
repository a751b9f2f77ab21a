"""Remedies for errors of boto3."""

from botocore import exceptions

NO_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.NoAuthTokenError,
    exceptions.TokenRetrievalError,
    exceptions.SSOError,
    exceptions.MetadataRetrievalError,
)
REFUSED_CREDENTIALS = (
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)
DENIED = ("AccessDenied", "AccessDeniedException", "AllAccessDisabled", "UnauthorizedOperation", "403")
WRONG_FILES = (
    exceptions.ConfigParseError,
    exceptions.ConfigNotFound,
    exceptions.InvalidConfigError,
    exceptions.InfiniteLoopConfigError,
)
UNREACHABLE = (exceptions.EndpointConnectionError, exceptions.ConnectTimeoutError, exceptions.ProxyConnectionError)


def make_login_command(profile: str = "") -> str:
    """Return the commands that set up credentials."""
    option = f" --profile {profile}" if profile else ""
    return f"`aws sso login{option}`, or `aws configure{option}`"


def find_remedy(error: Exception, profile: str = "") -> str:
    """Return the remedy for an error of boto3, or an empty string if none is known."""
    if isinstance(error, exceptions.ClientError):
        return _find_remedy_of_code(str(error.response["Error"].get("Code")), profile)
    if isinstance(error, NO_CREDENTIALS):
        return make_login_command(profile)
    if isinstance(error, exceptions.ProfileNotFound):
        return "`aws configure list-profiles` lists the existing ones"
    if isinstance(error, exceptions.NoRegionError):
        return "set --region, `region` in [aws] of microjobs.toml, or AWS_DEFAULT_REGION"
    if isinstance(error, WRONG_FILES):
        return "correct ~/.aws/config and ~/.aws/credentials, or choose another --profile"
    if isinstance(error, UNREACHABLE):
        return "check the network, the proxy, and that the region exists"
    return ""


def _find_remedy_of_code(code: str, profile: str) -> str:
    if code in REFUSED_CREDENTIALS:
        return make_login_command(profile)
    return "`microjobs doctor --on aws` shows what these credentials may do" if code in DENIED else ""
