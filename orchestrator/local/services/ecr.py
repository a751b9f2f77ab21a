"""ECR: a token for clients that log in before they name an image.

It opens nothing: images come from this machine's engine, with the engine's own logins.
"""

import base64
import secrets
import time
from collections.abc import Mapping
from typing import Any

from orchestrator.local.home import ACCOUNT, REGION
from orchestrator.local.services import Service

DOMAIN = f"dkr.ecr.{REGION}.amazonaws.com"
LIFETIME_SECONDS = 12 * 60 * 60


def operations() -> Service:
    return {"GetAuthorizationToken": _get_authorization_token}


def _get_authorization_token(request: Mapping[str, Any]) -> Mapping[str, Any]:
    token = base64.b64encode(f"AWS:{secrets.token_urlsafe(30)}".encode()).decode()
    expiry = time.time() + LIFETIME_SECONDS
    return {
        "authorizationData": [
            {"authorizationToken": token, "expiresAt": expiry, "proxyEndpoint": f"https://{registry}.{DOMAIN}"}
            for registry in request.get("registryIds", [ACCOUNT])
        ]
    }
