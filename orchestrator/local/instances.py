"""Processors and memory of `ml.*` instance types, derived from their names.

The size determines the processors, and the family determines the memory per processor:
https://aws.amazon.com/ec2/instance-types/
"""

import re

from microjobs_orchestrator.local.runtimes.base import HostLimits

GIB = 1 << 30

VCPUS = {"medium": 2, "large": 2, "xlarge": 4}
"""Processors of the small sizes; a size `Nxlarge` has 4 N processors."""

GIB_PER_VCPU = {"c": 2.0, "m": 4.0, "r": 8.0, "t": 4.0, "g": 4.0, "p": 8.0, "i": 2.0}
"""GiB per processor, by a family's first letter."""


def has_gpus(instance_type: str) -> bool:
    """Return whether an instance type has NVIDIA GPUs: it belongs to a G or P family."""
    return re.match(r"ml\.[gp]\d", instance_type) is not None


def find_limits(instance_type: str) -> HostLimits | None:
    """Return the processors and memory of a type; None if the name is unknown."""
    match = re.fullmatch(r"ml\.([a-z])[a-z0-9-]*\.(medium|large|(\d*)xlarge)", instance_type)
    if match is None or match[1] not in GIB_PER_VCPU:
        return None
    vcpus = VCPUS.get(match[2]) or 4 * int(match[3])
    gib_per_vcpu = 2.0 if match[1] == "t" and match[2] == "medium" else GIB_PER_VCPU[match[1]]
    return HostLimits(float(vcpus), round(vcpus * gib_per_vcpu * GIB))
