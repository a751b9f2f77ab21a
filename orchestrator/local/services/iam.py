"""IAM: roles and their policies. They are stored and described, and have no effect.

Every name is a role, so that clients find the role that they use on AWS. A deleted role is missing until it is created
again.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.identity import ACCOUNT
from microjobs_orchestrator.local.services import Service
from microjobs_orchestrator.local.services.pages import cut
from microjobs_orchestrator.local.state import NameTakenError, Query, Record, State

KIND = "iam-role"
DELETED = "Deleted"
PAGE = 100
ROLE_LIFETIME = 60 * 60

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
)
"""Trust policy of roles that were not created: clients check whether SageMaker may assume them."""

Request = Mapping[str, Any]
Answer = Mapping[str, Any]


class Iam:
    """The operations. Roles are in the server's state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._lock = threading.Lock()

    def operations(self) -> Service:
        changing: dict[str, Callable[[Request], Answer]] = {
            "CreateRole": self._create_role,
            "UpdateRole": self._update_role,
            "UpdateRoleDescription": self._describe_role,
            "UpdateAssumeRolePolicy": self._update_trust,
            "DeleteRole": self._delete_role,
            "PutRolePolicy": self._put_policy,
            "DeleteRolePolicy": self._delete_policy,
            "AttachRolePolicy": self._attach,
            "DetachRolePolicy": self._detach,
            "TagRole": self._tag,
            "UntagRole": self._untag,
        }
        return {
            "GetRole": self._get_role,
            "ListRoles": self._list_roles,
            "GetRolePolicy": self._get_policy,
            "ListRolePolicies": self._list_policies,
            "ListAttachedRolePolicies": self._list_attached,
            "ListInstanceProfilesForRole": self._list_profiles,
            "ListRoleTags": self._list_tags,
            "SimulatePrincipalPolicy": _simulate,
            **{name: self._lock_during(change) for name, change in changing.items()},
        }

    def _lock_during(self, change: Callable[[Request], Answer]) -> Callable[[dict[str, Any]], Answer]:
        """Return a handler that runs alone, because it reads a role before it writes it."""

        def locked(request: Request) -> Answer:
            with self._lock:
                return change(request)

        return locked

    # --- roles ---

    def role(self, name: str) -> Mapping[str, Any]:
        """Return the stored members of a role.

        Raises:
            ServiceError: NoSuchEntity 404, the role was deleted.
        """
        record = self._state.get(KIND, name)
        if record is None:
            return _implied(name)
        if record.status == DELETED:
            raise _missing(f"The role with name {name} cannot be found.")
        return record.description

    def _change(self, name: str, **members: Any) -> Mapping[str, Any]:
        """Change members of a role, and store it."""
        role = {**self.role(name), **members}
        self._store(name, role)
        return role

    def _store(self, name: str, role: Mapping[str, Any], status: str = "Active") -> None:
        if self._state.update(KIND, name, role, status) is None:
            self._state.add(KIND, name, role["Arn"], status, {}, role)

    def _create_role(self, request: Request) -> Answer:
        name, path = request["RoleName"], request.get("Path", "/")
        before: Record | None = self._state.get(KIND, name)
        if before is not None and before.status != DELETED:
            raise ServiceError("EntityAlreadyExists", f"Role with name {name} already exists.", 409)
        role = {
            **_implied(name, path, f"{name}/{time.time_ns()}"),
            "CreateDate": int(time.time()),
            "AssumeRolePolicyDocument": _document(request["AssumeRolePolicyDocument"]),
            "Description": request.get("Description", ""),
            "MaxSessionDuration": request.get("MaxSessionDuration", ROLE_LIFETIME),
            "Tags": _tags([], request.get("Tags", [])),
        }
        self._state.delete(KIND, name)
        try:
            self._state.add(KIND, name, role["Arn"], "Active", {}, role)
        except NameTakenError as error:
            raise ServiceError("EntityAlreadyExists", f"Role with name {name} already exists.", 409) from error
        return {"Role": _shown(role)}

    def _get_role(self, request: Request) -> Answer:
        return {"Role": _shown(self.role(request["RoleName"]))}

    def _update_role(self, request: Request) -> Answer:
        known = {name: request[name] for name in ("Description", "MaxSessionDuration") if name in request}
        self._change(request["RoleName"], **known)
        return {}

    def _describe_role(self, request: Request) -> Answer:
        return {"Role": _shown(self._change(request["RoleName"], Description=request["Description"]))}

    def _update_trust(self, request: Request) -> Answer:
        self._change(request["RoleName"], AssumeRolePolicyDocument=_document(request["PolicyDocument"]))
        return {}

    def _delete_role(self, request: Request) -> Answer:
        name = request["RoleName"]
        role = self.role(name)
        for what in ("policies", "attached"):
            if role[what]:
                message = f"Cannot delete entity, must {'delete' if what == 'policies' else 'detach'} policies first."
                raise ServiceError("DeleteConflict", message, 409)
        self._store(name, role, DELETED)
        return {}

    def _list_roles(self, request: Request) -> Answer:
        prefix = request.get("PathPrefix", "/")
        records = self._state.find(Query(KIND, status="Active", order_by="name", descending=False, limit=10_000))
        roles = [record.description for record in records if record.description["Path"].startswith(prefix)]
        return _page("Roles", [_listed(role) for role in roles], request)

    # --- policies ---

    def _put_policy(self, request: Request) -> Answer:
        policies = self.role(request["RoleName"])["policies"]
        self._change(
            request["RoleName"], policies={**policies, request["PolicyName"]: _document(request["PolicyDocument"])}
        )
        return {}

    def _get_policy(self, request: Request) -> Answer:
        role, policy = request["RoleName"], request["PolicyName"]
        document = self.role(role)["policies"].get(policy)
        if document is None:
            raise _missing(f"The role policy with name {policy} cannot be found.")
        return {"RoleName": role, "PolicyName": policy, "PolicyDocument": quote(document)}

    def _delete_policy(self, request: Request) -> Answer:
        policies = dict(self.role(request["RoleName"])["policies"])
        if policies.pop(request["PolicyName"], None) is None:
            raise _missing(f"The role policy with name {request['PolicyName']} cannot be found.")
        self._change(request["RoleName"], policies=policies)
        return {}

    def _list_policies(self, request: Request) -> Answer:
        return _page("PolicyNames", sorted(self.role(request["RoleName"])["policies"]), request)

    def _attach(self, request: Request) -> Answer:
        attached = {*self.role(request["RoleName"])["attached"], request["PolicyArn"]}
        self._change(request["RoleName"], attached=sorted(attached))
        return {}

    def _detach(self, request: Request) -> Answer:
        attached = self.role(request["RoleName"])["attached"]
        if request["PolicyArn"] not in attached:
            raise _missing(f"Policy {request['PolicyArn']} was not found.")
        self._change(request["RoleName"], attached=[arn for arn in attached if arn != request["PolicyArn"]])
        return {}

    def _list_attached(self, request: Request) -> Answer:
        prefix = request.get("PathPrefix", "/")
        attached = [
            {"PolicyName": arn.rpartition("/")[2], "PolicyArn": arn}
            for arn in self.role(request["RoleName"])["attached"]
            if arn.partition(":policy")[2].startswith(prefix)
        ]
        return _page("AttachedPolicies", attached, request)

    def _list_profiles(self, request: Request) -> Answer:
        """Return an empty list: there are no instances, so no role has an instance profile."""
        self.role(request["RoleName"])
        return _page("InstanceProfiles", [], request)

    # --- tags ---

    def _tag(self, request: Request) -> Answer:
        role = self.role(request["RoleName"])
        self._change(request["RoleName"], Tags=_tags(role["Tags"], request["Tags"]))
        return {}

    def _untag(self, request: Request) -> Answer:
        tags = [tag for tag in self.role(request["RoleName"])["Tags"] if tag["Key"] not in request["TagKeys"]]
        self._change(request["RoleName"], Tags=tags)
        return {}

    def _list_tags(self, request: Request) -> Answer:
        return _page("Tags", self.role(request["RoleName"])["Tags"], request)


def _implied(name: str, path: str = "/", identity: str = "") -> dict[str, Any]:
    """Return the role that a name stands for until it is created."""
    return {
        "Path": path,
        "RoleName": name,
        "RoleId": "AROA" + sha256((identity or name).encode()).hexdigest()[:16].upper(),
        "Arn": f"arn:aws:iam::{ACCOUNT}:role{path}{name}",
        "CreateDate": 0,
        "AssumeRolePolicyDocument": TRUST,
        "Description": "",
        "MaxSessionDuration": ROLE_LIFETIME,
        "Tags": [],
        "policies": {},
        "attached": [],
    }


def _shown(role: Mapping[str, Any]) -> dict[str, Any]:
    """Return a role as IAM describes it, with percent-encoded documents."""
    members = {name: value for name, value in role.items() if name[0].isupper() and value not in ("", [])}
    return {**members, "AssumeRolePolicyDocument": quote(role["AssumeRolePolicyDocument"])}


def _listed(role: Mapping[str, Any]) -> dict[str, Any]:
    """Return a role as IAM lists it, without its tags."""
    return {name: value for name, value in _shown(role).items() if name != "Tags"}


def _document(text: str) -> str:
    """Return a policy document unchanged. Raise ServiceError MalformedPolicyDocument if it is not a JSON object."""
    try:
        if not isinstance(json.loads(text), dict):
            raise ValueError("it is not an object")
    except (ValueError, RecursionError) as error:
        raise ServiceError("MalformedPolicyDocument", f"The policy is not a JSON object: {error}.") from error
    return text


def _tags(known: Sequence[Mapping[str, str]], new: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    merged = {tag["Key"]: tag["Value"] for tag in (*known, *new)}
    return [{"Key": key, "Value": value} for key, value in merged.items()]


def _missing(message: str) -> ServiceError:
    return ServiceError("NoSuchEntity", message, 404)


def _page(member: str, items: Sequence[Any], request: Request) -> dict[str, Any]:
    """Return the page of a list that a request asks for."""
    page, marker = cut(items, request.get("Marker", ""), request.get("MaxItems", PAGE), "ValidationError")
    more = {} if marker is None else {"Marker": marker}
    return {member: page, "IsTruncated": bool(more), **more}


def _simulate(request: Request) -> Answer:
    """Return that every action is allowed, because permissions are not checked."""
    results = [
        {"EvalActionName": action, "EvalResourceName": resource, "EvalDecision": "allowed"}
        for action in request["ActionNames"]
        for resource in request.get("ResourceArns", ["*"])
    ]
    return _page("EvaluationResults", results, request)
