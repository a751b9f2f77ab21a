"""STS: the caller's identity, and temporary credentials."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from microjobs_orchestrator.local import sessions
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.identity import ACCOUNT, Credentials
from microjobs_orchestrator.local.protocols.answer import Service
from microjobs_orchestrator.local.sessions import Caller

ROLE_LIFETIME = 60 * 60
TOKEN_LIFETIME = 12 * 60 * 60

ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::(?P<account>\d{12}):role/(?:[^/]+/)*(?P<name>[^/]+)")
"""ARN of a role. SDKs send some with a path."""


def operations(credentials: Credentials, role_id: Callable[[str], str]) -> Service:
    """Return the handlers. `role_id` returns the unique id of a role, or raises ServiceError NoSuchEntity."""

    def assume_role(request: Mapping[str, Any]) -> Mapping[str, Any]:
        match = ROLE_ARN.fullmatch(request["RoleArn"])
        if match is None:
            raise ServiceError("ValidationError", f"{request['RoleArn']} is not the ARN of a role.")
        session = request["RoleSessionName"]
        arn = f"arn:aws:sts::{match['account']}:assumed-role/{match['name']}/{session}"
        try:
            user_id = f"{role_id(match['name'])}:{session}"
        except ServiceError as error:
            raise ServiceError("AccessDenied", f"The role {request['RoleArn']} does not exist.", 403) from error
        issued = sessions.issue(credentials, Caller(arn, user_id), request.get("DurationSeconds", ROLE_LIFETIME))
        source = {"SourceIdentity": request["SourceIdentity"]} if "SourceIdentity" in request else {}
        user = {"AssumedRoleId": user_id, "Arn": arn}
        return {"Credentials": issued, "AssumedRoleUser": user, **source}

    def get_session_token(request: Mapping[str, Any]) -> Mapping[str, Any]:
        caller = sessions.caller.get()
        if caller != sessions.HOME_CALLER:
            raise ServiceError("AccessDenied", "Cannot call GetSessionToken with session credentials", 403)
        return {"Credentials": sessions.issue(credentials, caller, request.get("DurationSeconds", TOKEN_LIFETIME))}

    return {
        "GetCallerIdentity": _get_caller_identity,
        "GetAccessKeyInfo": _get_access_key_info,
        "AssumeRole": assume_role,
        "GetSessionToken": get_session_token,
    }


def _get_caller_identity(request: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG001  it has no members
    caller = sessions.caller.get()
    return {"UserId": caller.user_id, "Account": ACCOUNT, "Arn": caller.arn}


def _get_access_key_info(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the server's account, to which every access key belongs."""
    _ = request["AccessKeyId"]
    return {"Account": ACCOUNT}
