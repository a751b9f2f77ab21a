"""Checks of an AWS account."""

from collections.abc import Iterator

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from microjobs_orchestrator import workflows
from microjobs_orchestrator.aws.backend import credentials_problems, session
from microjobs_orchestrator.aws.remedies import DENIED
from microjobs_orchestrator.aws.settings import Settings, problems
from microjobs_orchestrator.doctor.account.account import Account
from microjobs_orchestrator.doctor.account.bucket import Bucket
from microjobs_orchestrator.doctor.account.credentials import Credentials
from microjobs_orchestrator.doctor.account.images import Images
from microjobs_orchestrator.doctor.account.permissions import Permissions
from microjobs_orchestrator.doctor.account.quotas import Quotas
from microjobs_orchestrator.doctor.account.role import Role
from microjobs_orchestrator.doctor.check import Check, Finding
from microjobs_orchestrator.local.home import Home

CHECKS = (Role, Permissions, Bucket, Quotas, Images)
"""Checks that need complete settings and valid credentials."""


def examine(settings: Settings, home: Home) -> Iterator[Finding]:
    """Run the checks and yield each finding as soon as it is known.

    Missing settings and missing credentials are findings, and end the examination.
    """
    incomplete, unknown = problems(settings, workflows.steps()), credentials_problems(settings)
    yield from (Finding("problem", problem.message, problem.remedy) for problem in (*incomplete, *unknown))
    if unknown or not settings.region:
        return
    account = Account(session(settings), settings, home)
    (credentials,) = Credentials(account).run()
    yield credentials
    if credentials.level == "ok" and not incomplete:
        for check in CHECKS:
            yield from run_guarded(check(account))


def run_guarded(check: Check) -> Iterator[Finding]:
    """Yield a check's findings; if AWS does not allow or answer its requests, yield a finding that reports this."""
    try:
        yield from check.run()
    except ClientError as error:
        if error.response["Error"]["Code"] in DENIED:
            message = f"{check.name} cannot be checked: {error.operation_name} is not allowed"
            yield Finding("unknown", message, "ask an administrator of the account, or continue without it")
        else:
            yield Finding("unknown", f"{check.name} cannot be checked: {error}", "try again")
    except (BotoCoreError, ResponseParserError, OSError) as error:  # a gateway may answer for AWS, with a page
        yield Finding("unknown", f"{check.name} cannot be checked: {error}", "try again")
