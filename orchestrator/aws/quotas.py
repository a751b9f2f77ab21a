"""How many instances an account may use at once: a quota a type and kind of use."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from microjobs_orchestrator.aws.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_service_quotas import ServiceQuotasClient

SCALING_HOSTS = 4
TRIALS_AT_ONCE = 3


@dataclass(frozen=True)
class Need:
    """Instances that are used at once under a quota."""

    name: str
    instances: int


def needs(settings: Settings) -> Iterator[Need]:
    """What the housing workflow uses, the most of each quota."""
    training = "spot training job" if settings.spot else "training job"
    steps = {
        "raw": ("processing job", 1),
        "scale": ("processing job", settings.instance_count or SCALING_HOSTS),
        "train": (training, 1),
        "tune": (training, TRIALS_AT_ONCE),
        "endpoint": ("endpoint", settings.endpoint_instances),
        "batch-score": ("processing job", 1),
    }
    most: dict[str, int] = {}
    for step, (kind, instances) in steps.items():
        name = f"{settings.instance_types.get(step, settings.instance_type)} for {kind} usage"
        most[name] = max(most.get(name, 0), instances)
    for name, instances in most.items():
        yield Need(name, instances)


def read(client: "ServiceQuotasClient") -> dict[str, float]:
    """The account's quotas of SageMaker, by name."""
    pages = client.get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
    return {quota["QuotaName"]: quota["Value"] for page in pages for quota in page["Quotas"]}
