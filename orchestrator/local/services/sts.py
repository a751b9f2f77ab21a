"""STS: who the caller is, and temporary credentials for everybody who has the server's own."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from microjobs_orchestrator.local import sessions
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.identity import ACCOUNT, Credentials
from microjobs_orchestrator.local.services import Service
from microjobs_orchestrator.local.sessions import Caller

ROLE_SECONDS = 60 * 60
TOKEN_SECONDS = 12 * 60 * 60

ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::(?P<account>\d{12}):role/(?:[^/]+/)*(?P<name>[^/]+)")
"""A role's ARN; SDKs send some with a path."""


def operations(credentials: Credentials, role_id: Callable[[str], str]) -> Service:
    """STS's operations.

    Args:
        credentials: the home's.
        role_id: the unique id of a role by its name; raises ServiceError NoSuchEntity.
    """

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
        issued = sessions.issue(credentials, Caller(arn, user_id), request.get("DurationSeconds", ROLE_SECONDS))
        source = {"SourceIdentity": request["SourceIdentity"]} if "SourceIdentity" in request else {}
        user = {"AssumedRoleId": user_id, "Arn": arn}
        return {"Credentials": sessions.format_credentials(issued), "AssumedRoleUser": user, **source}

    def get_session_token(request: Mapping[str, Any]) -> Mapping[str, Any]:
        who = sessions.caller.get()
        if who != sessions.OWNER:
            raise ServiceError("AccessDenied", "Cannot call GetSessionToken with session credentials", 403)
        issued = sessions.issue(credentials, who, request.get("DurationSeconds", TOKEN_SECONDS))
        return {"Credentials": sessions.format_credentials(issued)}

    return {
        "GetCallerIdentity": _get_caller_identity,
        "GetAccessKeyInfo": _get_access_key_info,
        "AssumeRole": assume_role,
        "GetSessionToken": get_session_token,
    }


def _get_caller_identity(request: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG001  it has no members
    who = sessions.caller.get()
    return {"UserId": who.user_id, "Account": ACCOUNT, "Arn": who.arn}


def _get_access_key_info(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The account of an access key: every key belongs to the server's account."""
    _ = request["AccessKeyId"]
    return {"Account": ACCOUNT}
