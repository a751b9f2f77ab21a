"""IAM: roles and their policies. The server stores and describes them, but they have no effect.

A role exists for every name, so that clients find the role that they use on AWS. A deleted role does not exist until it
is created again.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.identity import ACCOUNT
from microjobs_orchestrator.local.pages import cut_page
from microjobs_orchestrator.local.protocols.results import Service
from microjobs_orchestrator.local.state import Query, State

KIND = "iam-role"
DELETED_STATUS = "Deleted"
DEFAULT_SESSION_SECONDS = 60 * 60
"""The default value of a role's MaxSessionDuration."""

TRUST_STATEMENT = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
DEFAULT_TRUST_POLICY = json.dumps({"Version": "2012-10-17", "Statement": [TRUST_STATEMENT]})
"""Trust policy of roles that were not created: clients check whether SageMaker may assume them."""

Request = Mapping[str, Any]
Response = Mapping[str, Any]
Role = Mapping[str, Any]
"""IAM's members of a role, `policies` (inline policies by name) and `attached` (ARNs of managed policies)."""


class Iam:
    """IAM's operations. Roles are in the server's state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._lock = threading.Lock()

    def list_handlers(self) -> Service:
        return {
            "CreateRole": self._create_role,
            "DeleteRole": self._delete_role,
            "ListRoles": self._list_roles,
            "SimulatePrincipalPolicy": _simulate,
            **{name: partial(self._read, read) for name, read in READ_OPERATIONS.items()},
            **{name: partial(self._change, change) for name, change in CHANGE_OPERATIONS.items()},
            "UpdateRoleDescription": lambda request: {"Role": _describe(self._update(_update_role, request))},
        }

    def get_role(self, name: str) -> Role:
        """Return a role's stored members. Raise ServiceError NoSuchEntity 404 if the role was deleted."""
        record = self._state.get(KIND, name)
        if record is None:
            return _make_default_role(name)
        if record.status == DELETED_STATUS:
            raise _make_missing_error(f"The role with name {name} cannot be found.")
        return record.description

    def _read(self, read: Callable[[Role, Request], Response], request: Request) -> Response:
        return read(self.get_role(request["RoleName"]), request)

    def _change(self, change: Callable[[Role, Request], Role], request: Request) -> Response:
        self._update(change, request)
        return {}

    def _update(self, change: Callable[[Role, Request], Role], request: Request) -> Role:
        with self._lock:
            role = self.get_role(request["RoleName"])
            role = {**role, **change(role, request)}
            self._store(role)
        return role

    def _store(self, role: Role, status: str = "Active") -> None:
        name = role["RoleName"]
        if self._state.update(KIND, name, role, status) is None:
            self._state.add(KIND, name, role["Arn"], status, request={}, description=role)

    def _create_role(self, request: Request) -> Response:
        name = request["RoleName"]
        role = {
            **_make_default_role(name, request.get("Path", "/"), f"{name}/{time.time_ns()}"),
            "CreateDate": int(time.time()),
            "AssumeRolePolicyDocument": _require_json_object(request["AssumeRolePolicyDocument"]),
            "Description": request.get("Description", ""),
            "MaxSessionDuration": request.get("MaxSessionDuration", DEFAULT_SESSION_SECONDS),
            "Tags": _merge_tags([], request.get("Tags", [])),
        }
        with self._lock:
            old_record = self._state.get(KIND, name)
            if old_record is not None and old_record.status != DELETED_STATUS:
                raise ServiceError("EntityAlreadyExists", f"Role with name {name} already exists.", 409)
            self._state.delete(KIND, name)
            self._store(role)
        return {"Role": _describe(role)}

    def _delete_role(self, request: Request) -> Response:
        with self._lock:
            role = self.get_role(request["RoleName"])
            for member, verb in (("policies", "delete"), ("attached", "detach")):
                if role[member]:
                    message = f"Cannot delete entity, must {verb} policies first."
                    raise ServiceError("DeleteConflict", message, 409)
            self._store(role, DELETED_STATUS)
        return {}

    def _list_roles(self, request: Request) -> Response:
        records = self._state.find(Query(KIND, status="Active", order_by="name", descending=False, limit=10_000))
        roles = [{**record.description, "Tags": []} for record in records]  # as on AWS, lists of roles have no tags
        prefix = request.get("PathPrefix", "/")
        return _make_page("Roles", [_describe(role) for role in roles if role["Path"].startswith(prefix)], request)


# --- operations that read one role ---


def _get_policy(role: Role, request: Request) -> Response:
    name = request["PolicyName"]
    if name not in role["policies"]:
        raise _make_missing_error(f"The role policy with name {name} cannot be found.")
    return {"RoleName": role["RoleName"], "PolicyName": name, "PolicyDocument": quote(role["policies"][name])}


def _list_attached_policies(role: Role, request: Request) -> Response:
    prefix = request.get("PathPrefix", "/")
    policies = [
        {"PolicyName": arn.rpartition("/")[2], "PolicyArn": arn}
        for arn in role["attached"]
        if arn.partition(":policy")[2].startswith(prefix)
    ]
    return _make_page("AttachedPolicies", policies, request)


READ_OPERATIONS: Mapping[str, Callable[[Role, Request], Response]] = {
    "GetRole": lambda role, _: {"Role": _describe(role)},
    "GetRolePolicy": _get_policy,
    "ListRolePolicies": lambda role, request: _make_page("PolicyNames", sorted(role["policies"]), request),
    "ListAttachedRolePolicies": _list_attached_policies,
    "ListInstanceProfilesForRole": lambda _, request: _make_page("InstanceProfiles", [], request),
    "ListRoleTags": lambda role, request: _make_page("Tags", role["Tags"], request),
}


# --- operations that change one role: each function returns the changed members ---


def _update_role(_: Role, request: Request) -> Role:
    return {name: request[name] for name in ("Description", "MaxSessionDuration") if name in request}


def _delete_policy(role: Role, request: Request) -> Role:
    _get_policy(role, request)
    return {"policies": {name: text for name, text in role["policies"].items() if name != request["PolicyName"]}}


def _put_policy(role: Role, request: Request) -> Role:
    return {"policies": {**role["policies"], request["PolicyName"]: _require_json_object(request["PolicyDocument"])}}


def _detach_policy(role: Role, request: Request) -> Role:
    if request["PolicyArn"] not in role["attached"]:
        raise _make_missing_error(f"Policy {request['PolicyArn']} was not found.")
    return {"attached": [arn for arn in role["attached"] if arn != request["PolicyArn"]]}


CHANGE_OPERATIONS: Mapping[str, Callable[[Role, Request], Role]] = {
    "UpdateRole": _update_role,
    "UpdateAssumeRolePolicy": lambda _, request: {
        "AssumeRolePolicyDocument": _require_json_object(request["PolicyDocument"])
    },
    "PutRolePolicy": _put_policy,
    "DeleteRolePolicy": _delete_policy,
    "AttachRolePolicy": lambda role, request: {"attached": sorted({*role["attached"], request["PolicyArn"]})},
    "DetachRolePolicy": _detach_policy,
    "TagRole": lambda role, request: {"Tags": _merge_tags(role["Tags"], request["Tags"])},
    "UntagRole": lambda role, request: {"Tags": [tag for tag in role["Tags"] if tag["Key"] not in request["TagKeys"]]},
}


# --- members of roles ---


def _make_default_role(name: str, path: str = "/", id_seed: str = "") -> dict[str, Any]:
    """Return a role with default members. Such a role exists for every name until CreateRole or DeleteRole.

    Args:
        id_seed: text from which the RoleId is derived; by default, the name.
    """
    return {
        "Path": path,
        "RoleName": name,
        "RoleId": "AROA" + sha256((id_seed or name).encode()).hexdigest()[:16].upper(),
        "Arn": f"arn:aws:iam::{ACCOUNT}:role{path}{name}",
        "CreateDate": 0,
        "AssumeRolePolicyDocument": DEFAULT_TRUST_POLICY,
        "Description": "",
        "MaxSessionDuration": DEFAULT_SESSION_SECONDS,
        "Tags": [],
        "policies": {},
        "attached": [],
    }


def _describe(role: Role) -> dict[str, Any]:
    members = {name: value for name, value in role.items() if name[0].isupper() and value not in ("", [])}
    return {**members, "AssumeRolePolicyDocument": quote(role["AssumeRolePolicyDocument"])}


def _require_json_object(text: str) -> str:
    """Return the text of a policy. Raise ServiceError MalformedPolicyDocument if it is not a JSON object."""
    try:
        if not isinstance(json.loads(text), dict):
            raise ValueError("it is not an object")
    except (ValueError, RecursionError) as error:
        raise ServiceError("MalformedPolicyDocument", f"The policy is not a JSON object: {error}.") from error
    return text


def _merge_tags(old_tags: Sequence[Mapping[str, str]], new_tags: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    values_by_key = {tag["Key"]: tag["Value"] for tag in (*old_tags, *new_tags)}
    return [{"Key": key, "Value": value} for key, value in values_by_key.items()]


def _make_missing_error(message: str) -> ServiceError:
    return ServiceError("NoSuchEntity", message, 404)


def _make_page(member: str, items: Sequence[Any], request: Request) -> Response:
    page, token = cut_page(items, request, ("Marker", "MaxItems"), code="ValidationError")
    return {member: page, "IsTruncated": bool(token), **token}


def _simulate(request: Request) -> Response:
    """Allow every action, because permissions are not checked."""
    results = [
        {"EvalActionName": action, "EvalResourceName": resource, "EvalDecision": "allowed"}
        for action in request["ActionNames"]
        for resource in request.get("ResourceArns", ["*"])
    ]
    return _make_page("EvaluationResults", results, request)
