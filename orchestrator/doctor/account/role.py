"""The role: whether it exists, and whether SageMaker may assume it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator.doctor.account.account import DEPLOY_TEMPLATE, Account
from microjobs_orchestrator.doctor.check import Finding

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient

SAGEMAKER = "sagemaker.amazonaws.com"


@dataclass(frozen=True)
class Role:
    account: Account
    name: str = "the role"

    def run(self) -> Iterator[Finding]:
        settings = self.account.settings
        iam: IAMClient = self.account.client("iam")
        try:
            role: Any = iam.get_role(RoleName=settings.role_name)["Role"]
        except iam.exceptions.NoSuchEntityException:
            yield Finding("problem", f"there is no role {settings.role_name}", DEPLOY_TEMPLATE)
            return
        if role["Arn"] != settings.role:
            message = f"the role's ARN is {role['Arn']}, not {settings.role}"
            yield Finding("problem", message, "write the ARN into microjobs.toml")
        elif trusts_sagemaker(role["AssumeRolePolicyDocument"]):
            yield Finding("ok", f"role {settings.role_name}, which SageMaker may assume")
        else:
            message = f"role {settings.role_name} does not trust {SAGEMAKER}"
            yield Finding("problem", message, f"allow it sts:AssumeRole, or {DEPLOY_TEMPLATE}")


def trusts_sagemaker(policy: Any) -> bool:
    """Return whether a trust policy lets SageMaker assume a role."""
    return any(_allows_sagemaker(statement) for statement in _as_list(policy.get("Statement", [])))


def _allows_sagemaker(statement: dict[str, Any]) -> bool:
    principal = statement.get("Principal", {})
    services = principal.get("Service", []) if isinstance(principal, dict) else []
    return (
        statement.get("Effect") == "Allow"
        and SAGEMAKER in _as_list(services)
        and "sts:AssumeRole" in _as_list(statement.get("Action", []))
    )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
