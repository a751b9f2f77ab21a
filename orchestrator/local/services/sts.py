"""STS: the caller's identity, and temporary credentials."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from microjobs_orchestrator.local import temporary_credentials
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.identity import ACCOUNT, Credentials
from microjobs_orchestrator.local.protocols.results import Service
from microjobs_orchestrator.local.temporary_credentials import Caller

ROLE_SESSION_SECONDS = 60 * 60
TOKEN_SECONDS = 12 * 60 * 60
"""Default lifetimes of the credentials from AssumeRole and from GetSessionToken."""

ROLE_ARN_PATTERN = re.compile(r"arn:aws[a-z-]*:iam::(?P<account>\d{12}):role/(?:[^/]+/)*(?P<name>[^/]+)")
"""The ARN of a role. SDKs also send ARNs with a path."""


def list_handlers(credentials: Credentials, find_role_id: Callable[[str], str]) -> Service:
    """Return the handlers of STS.

    Args:
        find_role_id: returns the unique id of the role with a name, or raises ServiceError NoSuchEntity.
    """

    def assume_role(request: Mapping[str, Any]) -> Mapping[str, Any]:
        match = ROLE_ARN_PATTERN.fullmatch(request["RoleArn"])
        if match is None:
            raise ServiceError("ValidationError", f"{request['RoleArn']} is not the ARN of a role.")
        session = request["RoleSessionName"]
        arn = f"arn:aws:sts::{match['account']}:assumed-role/{match['name']}/{session}"
        try:
            user_id = f"{find_role_id(match['name'])}:{session}"
        except ServiceError as error:
            raise ServiceError("AccessDenied", f"The role {request['RoleArn']} does not exist.", 403) from error
        session_credentials = temporary_credentials.issue(
            credentials, Caller(arn, user_id), request.get("DurationSeconds", ROLE_SESSION_SECONDS)
        )
        source = {"SourceIdentity": request["SourceIdentity"]} if "SourceIdentity" in request else {}
        user = {"AssumedRoleId": user_id, "Arn": arn}
        return {"Credentials": session_credentials, "AssumedRoleUser": user, **source}

    def get_session_token(request: Mapping[str, Any]) -> Mapping[str, Any]:
        caller = temporary_credentials.current_caller.get()
        if caller != temporary_credentials.HOME_CALLER:
            raise ServiceError("AccessDenied", "Cannot call GetSessionToken with session credentials", 403)
        return {
            "Credentials": temporary_credentials.issue(
                credentials, caller, request.get("DurationSeconds", TOKEN_SECONDS)
            )
        }

    return {
        "GetCallerIdentity": _get_caller_identity,
        "GetAccessKeyInfo": _get_access_key_info,
        "AssumeRole": assume_role,
        "GetSessionToken": get_session_token,
    }


def _get_caller_identity(request: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG001  it has no members
    caller = temporary_credentials.current_caller.get()
    return {"UserId": caller.user_id, "Account": ACCOUNT, "Arn": caller.arn}


def _get_access_key_info(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the server's account, to which every access key belongs."""
    _ = request["AccessKeyId"]  # a test requires that each honoured member is read
    return {"Account": ACCOUNT}
