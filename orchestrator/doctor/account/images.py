"""The pushed images: whether ECR has them, with the digests that requests name, for SageMaker's platform."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from microjobs_orchestrator.aws import architecture, images
from microjobs_orchestrator.doctor.account.account import Account
from microjobs_orchestrator.doctor.check import Finding
from microjobs_orchestrator.images import PLATFORM, jobs

if TYPE_CHECKING:
    from mypy_boto3_ecr import ECRClient


@dataclass(frozen=True)
class Images:
    account: Account
    name: str = "images"

    def run(self) -> Iterator[Finding]:
        pushed = images.pushed(self.account.home, self.account.settings.destination)
        for job in jobs():
            if job in pushed:
                yield self._check_pushed(job, pushed[job])
            else:
                yield Finding("problem", f"no image of {job} was pushed from here", f"microjobs push {job}")

    def _check_pushed(self, job: str, uri: str) -> Finding:
        ecr: ECRClient = self.account.client("ecr")
        repository = self.account.settings.destination.name(job)
        platforms = architecture.platforms(ecr, repository, uri.rpartition("@")[2])
        if not platforms:
            return Finding("problem", f"{uri} is no longer in ECR", f"microjobs push {job}")
        if PLATFORM not in platforms:
            remedy = f"`microjobs build {job}`, then `microjobs push {job}`"
            return Finding("problem", f"{job} is for {', '.join(platforms)}, not {PLATFORM}", remedy)
        return Finding("ok", f"{job} is in ECR, for {PLATFORM}")
