"""STS: who the caller is. Everybody who has this server's credentials is the same user."""

from collections.abc import Mapping
from typing import Any

from orchestrator.local.home import ACCOUNT
from orchestrator.local.services import Service

USER = "microjobs"


def operations() -> Service:
    return {"GetCallerIdentity": _get_caller_identity}


def _get_caller_identity(request: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG001  it has no members
    return {"UserId": USER, "Account": ACCOUNT, "Arn": f"arn:aws:iam::{ACCOUNT}:user/{USER}"}
