"""The quotas: whether the account may use as many instances as the workflows need."""

from collections.abc import Iterator
from dataclasses import dataclass

from microjobs_orchestrator import workflows
from microjobs_orchestrator.aws import quotas
from microjobs_orchestrator.aws.backend import request_context
from microjobs_orchestrator.doctor.account.account import Account
from microjobs_orchestrator.doctor.check import Finding


@dataclass(frozen=True)
class Quotas:
    account: Account
    name: str = "quotas"

    def run(self) -> Iterator[Finding]:
        limits = quotas.read(self.account.client("service-quotas"))
        settings = self.account.settings
        requests = workflows.plan_requests(request_context(settings, image=str), settings.workflow_options)
        for quota, instances in quotas.needed_quotas(requests, spot=settings.spot).items():
            yield compare(quota, limits.get(quota), instances)


def compare(quota: str, limit: float | None, needed: int) -> Finding:
    """Return the finding for a quota of instances; the limit is None if AWS has no quota of that name."""
    if limit is None:
        return Finding("unknown", f"no quota is called {quota!r}", "check the name of the instance type")
    if limit >= needed:
        return Finding("ok", f"quota {quota!r} is {limit:g}")
    return Finding(
        "problem",
        f"quota {quota!r} is {limit:g}, {needed} are needed",
        "request an increase in the console of Service Quotas, or choose another --instance-type",
    )
