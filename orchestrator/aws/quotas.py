"""Quotas of an AWS account: how many instances of a type it may use at the same time, for example for training jobs."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from microjobs_orchestrator.aws.costs import estimate
from microjobs_orchestrator.runs.kinds import TRAINING
from microjobs_orchestrator.runs.planned import PlannedRequest

if TYPE_CHECKING:
    from mypy_boto3_service_quotas import ServiceQuotasClient


def compute_needed_quotas(requests: Iterable[PlannedRequest], *, spot: bool) -> dict[str, int]:
    """Return the number of instances that the requests need at the same time, by quota.

    The steps of a run follow one another, so the step with the most instances counts, not the sum.
    """
    needed_counts: dict[str, int] = {}
    for item in estimate(requests, max_endpoint_seconds=0):
        use = f"spot {item.quota_usage}" if spot and item.quota_usage == TRAINING.display_name else item.quota_usage
        quota = f"{item.instance_type} for {use} usage"
        needed_counts[quota] = max(needed_counts.get(quota, 0), item.concurrent_count)
    return needed_counts


def read_quotas(client: "ServiceQuotasClient") -> dict[str, float]:
    """Return the account's quotas of SageMaker, by name."""
    pages = client.get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
    return {quota["QuotaName"]: quota["Value"] for page in pages for quota in page["Quotas"]}
