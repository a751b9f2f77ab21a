"""STS, IAM and ECR: identities, roles and repositories."""

from orchestrator.local.parity.common import honoured
from orchestrator.local.parity.rows import Honoured, Rows

STS: dict[str, Rows] = {"GetCallerIdentity": {}}

IAM: dict[str, Rows] = {"GetRole": {"RoleName": Honoured("every name is a role")}}

ECR: dict[str, Rows] = {"GetAuthorizationToken": honoured("registryIds")}
