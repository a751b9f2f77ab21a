"""Quotas of an AWS account: how many instances of a type it may use at the same time, for one use."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from microjobs_orchestrator.aws.instances import Instances, planned_instances
from microjobs_orchestrator.runs.planned import PlannedRequest

if TYPE_CHECKING:
    from mypy_boto3_service_quotas import ServiceQuotasClient


def needed_quotas(requests: Iterable[PlannedRequest], *, spot: bool) -> dict[str, int]:
    """Return the instances that requests need at the same time, by quota. Their steps run one after the other.

    Args:
        spot: training jobs run on spot instances.
    """
    needed: dict[str, int] = {}
    for instances in planned_instances(requests):
        quota = _quota_name(instances, spot=spot)
        needed[quota] = max(needed.get(quota, 0), instances.concurrent)
    return needed


def _quota_name(instances: Instances, *, spot: bool) -> str:
    use = f"spot {instances.use}" if spot and instances.use == "training job" else instances.use
    return f"{instances.instance_type} for {use} usage"


def read(client: "ServiceQuotasClient") -> dict[str, float]:
    """Return the account's quotas of SageMaker, by name."""
    pages = client.get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
    return {quota["QuotaName"]: quota["Value"] for page in pages for quota in page["Quotas"]}
