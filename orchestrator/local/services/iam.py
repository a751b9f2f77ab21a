"""IAM: a role for every name. Roles have no meaning here; clients look up the ARN of the short name they are given."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from orchestrator.local.home import ACCOUNT
from orchestrator.local.services import Service

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
)
"""What clients look for before they hand a role to SageMaker; nobody takes it on here."""


def operations() -> Service:
    return {"GetRole": _get_role}


def _get_role(request: Mapping[str, Any]) -> Mapping[str, Any]:
    name = request["RoleName"]
    role_id = "AROA" + sha256(name.encode()).hexdigest()[:16].upper()
    arn = f"arn:aws:iam::{ACCOUNT}:role/{name}"
    role = {"Path": "/", "RoleName": name, "RoleId": role_id, "Arn": arn, "CreateDate": 0}
    return {"Role": role | {"AssumeRolePolicyDocument": TRUST}}
