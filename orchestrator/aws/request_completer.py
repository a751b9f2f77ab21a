"""Completes requests for AWS with the values of the settings: tags, a network, keys, spot instances."""

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from microjobs_orchestrator.aws.settings import Settings
from microjobs_orchestrator.runs.backend import CompleteRequest
from microjobs_orchestrator.runs.kinds import Kind, Members

RUN_TAG = "microjobs:run"
"""The tag of everything that a run creates, so that bills can be split by run."""

LOCAL_DISK_TYPE_PATTERN = re.compile(r"ml\.(?:[a-z]+\d+[a-z]*d[a-z]*|g[5-9][a-z]*|p[4-9][a-z]*|i\d\w*|trn\d\w*)\.")
"""Matches instance types with local disks, which hardware encrypts. AWS refuses a key for the volume of such a type.
Many of these types have a `d` in the name, such as ml.m5d.large. Others, such as ml.g5.xlarge, do not.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ResourceConfig.html
"""


def make_request_completer(settings: Settings) -> CompleteRequest:
    """Return the function that completes each request."""

    def complete(run: str, kind: Kind, request: Members) -> Members:
        completed_request: dict[str, Any] = deepcopy(dict(request))
        job_members: Any = kind.select_job_members(completed_request)
        for path, value in _list_additions(settings, kind, completed_request):
            *parents, name = path.split(".")
            members = job_members
            for parent in parents:
                members = members.setdefault(parent, {})
            members[name] = value
        tags = {**settings.tags, RUN_TAG: run}
        return {**completed_request, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    return complete


def _list_additions(settings: Settings, kind: Kind, request: Members) -> Iterator[tuple[str, object]]:
    """Yield the path and the value of each member to add to `kind.select_job_members(request)`."""
    if kind.aws.network and settings.subnets:
        yield kind.aws.network, {"Subnets": [*settings.subnets], "SecurityGroupIds": [*settings.security_groups]}
    if settings.kms_key:
        if kind.aws.output_kms_key:
            yield kind.aws.output_kms_key, settings.kms_key
        has_local_disks = any(
            LOCAL_DISK_TYPE_PATTERN.match(instance_type) for instance_type, _ in kind.list_instances(request)
        )
        if kind.aws.volume_kms_key and not has_local_disks:
            yield kind.aws.volume_kms_key, settings.kms_key
    if kind.aws.has_spot and settings.spot:
        yield "EnableManagedSpotTraining", True
        max_seconds = kind.select_job_members(request)["StoppingCondition"]["MaxRuntimeInSeconds"]
        yield "StoppingCondition.MaxWaitTimeInSeconds", max_seconds + 60 * settings.spot_wait_minutes
