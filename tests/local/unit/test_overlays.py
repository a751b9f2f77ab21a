"""Tests of the errors from which the server concludes that an engine refuses overlays. It then copies inputs."""

from unittest.mock import Mock

import pytest
from docker.errors import APIError

from microjobs_orchestrator.local.runtimes.docker.overlays import Overlays

REFUSED_MESSAGE = (
    "failed to mount local volume: mount overlay:/var/lib/docker/volumes/a/_data, flags: 0x0: invalid argument"
)
OTHER_MESSAGE = '"/var/lib/docker/overlay2/1f/merged/proc/x" cannot be mounted because it is inside /proc'


@pytest.mark.parametrize(("reason", "is_refusal"), [(REFUSED_MESSAGE, True), (OTHER_MESSAGE, False)])
def test_only_errors_of_overlay_mounts_are_refusals(reason: str, is_refusal: bool) -> None:
    assert (
        Overlays(Mock(version=dict, info=dict)).disable_if_refused(APIError("500 Server Error", explanation=reason))
        is is_refusal
    )
