"""The role's permissions, by IAM's own simulation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from microjobs_orchestrator.aws.settings import Settings
from microjobs_orchestrator.doctor.account.account import DEPLOY_TEMPLATE, Account
from microjobs_orchestrator.doctor.check import Finding
from microjobs_orchestrator.images import jobs

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_iam.type_defs import ContextEntryTypeDef


@dataclass(frozen=True)
class Permissions:
    account: Account
    name: str = "the role's permissions"

    def run(self) -> Iterator[Finding]:
        settings = self.account.settings
        denied = [
            f"{action} on {resource}"
            for actions, resource in needed_permissions(settings)
            for action in self._denied_actions(actions, resource)
        ]
        if denied:
            yield Finding("problem", f"role {settings.role_name} may not: {', '.join(denied)}", DEPLOY_TEMPLATE)
        else:
            yield Finding("ok", f"role {settings.role_name} has the permissions that jobs need")

    def _denied_actions(self, actions: list[str], resource: str) -> list[str]:
        iam: IAMClient = self.account.client("iam")
        settings = self.account.settings
        context: ContextEntryTypeDef = {
            "ContextKeyName": "s3:prefix",
            "ContextKeyValues": [f"{settings.key_prefix}run"],
            "ContextKeyType": "string",
        }
        response = iam.simulate_principal_policy(
            PolicySourceArn=settings.role, ActionNames=actions, ResourceArns=[resource], ContextEntries=[context]
        )
        results = response["EvaluationResults"]
        return [result["EvalActionName"] for result in results if result["EvalDecision"] != "allowed"]


def needed_permissions(settings: Settings) -> Iterator[tuple[list[str], str]]:
    """Yield the actions of jobs with the ARN of the resource that they act on."""
    partition = settings.role.split(":")[1]
    bucket = f"arn:{partition}:s3:::{settings.bucket}"
    logs = f"arn:{partition}:logs:{settings.region}:{settings.account}:log-group:/aws/sagemaker/TrainingJobs"
    yield ["s3:GetObject", "s3:PutObject"], f"{bucket}/{settings.key_prefix}run/object"
    yield ["s3:ListBucket"], bucket
    yield ["logs:CreateLogStream", "logs:PutLogEvents"], f"{logs}:log-stream:job"
    yield ["ecr:GetAuthorizationToken"], "*"
    registry = f"arn:{partition}:ecr:{settings.region}:{settings.account}:repository"
    for job in jobs():
        yield ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"], f"{registry}/{settings.destination.name(job)}"
