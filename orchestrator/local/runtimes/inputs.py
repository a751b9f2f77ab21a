"""Inputs in containers: a writable view of a folder without a copy, where the engine can make one.

An overlay volume has the folder below and a volume of the engine's above, which takes what the job writes. Where
the engine cannot (it runs in a virtual machine or without root's rights), the files are copied into the container.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import docker
from docker.errors import APIError

from orchestrator.local.runtimes.base import Input

logger = logging.getLogger(__name__)


class Overlays:
    """Makes overlay volumes for as long as the engine can."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client
        self._possible = True

    def divide(self, inputs: Sequence[Input]) -> tuple[list[Input], list[Input]]:
        """Which inputs are overlaid, and which are copied. In mount options `,` and `:` separate."""
        overlaid = [item for item in inputs if self._possible and not set(str(item.source)) & set(",:\\")]
        return overlaid, [item for item in inputs if item not in overlaid]

    def volume(self, source: Path, labels: Mapping[str, str]) -> str:
        """A volume that shows the folder; the engine's own volumes take the changes, so they go with the container."""
        upper, work = (self._client.volumes.create(labels=dict(labels)).attrs["Mountpoint"] for _ in ("upper", "work"))
        # Without redirect_dir a job could not rename the folders that it was given, its checkpoints above all.
        mount = f"lowerdir={source},upperdir={upper},workdir={work},redirect_dir=on"
        options = {"type": "overlay", "device": "overlay", "o": mount}
        name: str = self._client.volumes.create(driver="local", driver_opts=options, labels=dict(labels)).name
        return name

    def refused(self, error: APIError) -> bool:
        """Whether a container did not start because of an overlay; from then on inputs are copied."""
        if "mount overlay:" not in str(error.explanation):  # the engine's own files have `overlay2` in their paths
            return False
        logger.warning("this engine cannot overlay folders, so inputs are copied: %s", error.explanation)
        self._possible = False
        return True
