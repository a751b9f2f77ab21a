"""Signatures of version 2 in presigned addresses of S3.

https://docs.aws.amazon.com/AmazonS3/latest/API/RESTAuthentication.html
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from botocore import credentials as botocore_credentials
from botocore.auth import HmacV1QueryAuth
from botocore.awsrequest import AWSRequest
from werkzeug import Request

from microjobs_orchestrator.local.gateway.auth_errors import AuthError
from microjobs_orchestrator.local.gateway.claims import V2_PARAMETERS, Claim
from microjobs_orchestrator.local.gateway.virtual_hosts import bucket_of_host
from microjobs_orchestrator.local.identity import Credentials
from microjobs_orchestrator.local.protocols.http import get_headers

UNSIGNED_PARAMETERS = frozenset(
    {
        *("Expires", "content-md5", "content-type", "x-id"),
        *("continuation-token", "delimiter", "encoding-type", "fetch-owner", "key-marker", "list-type", "marker"),
        *("max-keys", "max-parts", "max-uploads", "part-number-marker", "prefix", "start-after", "upload-id-marker"),
        "version-id-marker",
    }
)
"""Parameters that an address may have without a signature: they are signed elsewhere, or select parts of a list."""


def sign_v2(request: Request, claim: Claim, credentials: Credentials) -> str:
    """Return the signature that a presigned address must have.

    Raises:
        AuthError: the address has a parameter that version 2 does not sign.
    """
    signer = _Signer(botocore_credentials.Credentials(credentials.access_key_id, credentials.secret_access_key))
    signer.expiry = claim.timestamp
    _check_parameters(request.args, signer)
    # Botocore moves headers of S3's into the address, where they are signed as if they were headers.
    moved = {
        name: value
        for name, value in request.args.items()
        if name.startswith("x-amz-") or name in ("content-type", "content-md5")
    }
    sent = AWSRequest(method=request.method, headers={**moved, **get_headers(request)})
    address = urlsplit(f"http://host{request.environ['REQUEST_URI']}")
    headers = cast("Mapping[str, Any]", sent.headers)
    return str(signer.get_signature(request.method, address, headers, auth_path=_resource(request)))


def _check_parameters(names: Iterable[str], signer: HmacV1QueryAuth) -> None:
    """Refuse parameters that version 2 does not sign and that name newer operations, such as `attributes`."""
    for name in names:
        is_signed = name in signer.QSAOfInterest or name.lower().startswith("x-amz-") or name.lower() in V2_PARAMETERS
        if not is_signed and name not in UNSIGNED_PARAMETERS:
            raise AuthError("signature", f"version 2 does not sign the parameter {name!r:.80}: presign with version 4")


def _resource(request: Request) -> str:
    """Return the bucket and the key as version 2 signs them, with the bucket in the path or in the host."""
    path = str(request.environ["REQUEST_URI"]).partition("?")[0]
    if bucket := bucket_of_host(request.headers.get("Host", "")):
        return f"/{bucket}{path}"
    return path if path.count("/") > 1 or path == "/" else f"{path}/"


class _Signer(HmacV1QueryAuth):
    """Signs with the expiry of the address, in place of one that counts from now."""

    expiry = ""

    def _get_date(self) -> str:
        return self.expiry
