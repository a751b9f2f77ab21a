"""Tests of the decision whether inputs are overlaid or copied."""

from unittest.mock import Mock

import pytest
from docker.errors import APIError

from microjobs_orchestrator.local.runtimes.docker.overlays import Overlays

REFUSED = "failed to mount local volume: mount overlay:/var/lib/docker/volumes/a/_data, flags: 0x0: invalid argument"
OTHER = '"/var/lib/docker/overlay2/1f/merged/proc/x" cannot be mounted because it is inside /proc'


@pytest.mark.parametrize(("reason", "refused"), [(REFUSED, True), (OTHER, False)])
def test_only_overlay_errors_disable_overlays(reason: str, refused: bool) -> None:
    assert Overlays(Mock(version=dict)).is_refusal(APIError("500 Server Error", explanation=reason)) is refused
