"""Checks that AWS accepts the credentials, and that they belong to the role's account."""

from collections.abc import Iterator
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from microjobs_orchestrator.aws.remedies import login, remedy
from microjobs_orchestrator.doctor.account.account import Account
from microjobs_orchestrator.doctor.check import Finding


@dataclass(frozen=True)
class Credentials:
    account: Account
    name: str = "the credentials"

    def run(self) -> Iterator[Finding]:
        settings = self.account.settings
        try:
            identity = self.account.client("sts").get_caller_identity()
        except (BotoCoreError, ClientError) as error:
            instruction = remedy(error, settings.profile) or login(settings.profile)
            yield Finding("problem", f"AWS does not accept these credentials: {error}", instruction)
            return
        if settings.account and identity["Account"] != settings.account:
            message = (
                f"the credentials belong to account {identity['Account']}, and the role to account {settings.account}"
            )
            yield Finding("problem", message, "choose another --profile, or another role")
        else:
            yield Finding("ok", f"credentials of {identity['Arn']}")
