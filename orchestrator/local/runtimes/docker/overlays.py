"""Inputs in containers. A container can write to an overlay of a folder, without a copy of the folder's files.

An overlay volume has the folder as its lower layer and a volume of the engine as its upper layer, which takes the
changes. If the engine cannot make overlays (it runs in a virtual machine, or may not read the folder), the files are
copied into the container.
"""

import logging
import os
import stat
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import docker
from docker.errors import APIError

from microjobs_orchestrator.docker_engine import is_podman, is_rootless
from microjobs_orchestrator.local.runtimes import files
from microjobs_orchestrator.local.runtimes.base import Input

logger = logging.getLogger(__name__)

READABLE_MODE = 0o444

REFUSAL_MESSAGES = ("mount overlay:", "mounting volume")
"""Parts of the messages with which Docker and Podman refuse an overlay. The word `overlay` alone is not enough, because
it also occurs in paths of Docker's own files."""


def make_readable(folder: Path) -> None:
    """Make a folder's files readable for all users.

    All hard links of a file have one mode. Therefore, a copy replaces the link if the mode has to change.
    """
    for parent, _, names in os.walk(folder):
        _add_mode(Path(parent), 0o755)
        for name in names:
            path = Path(parent, name)
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_mode & READABLE_MODE != READABLE_MODE:
                _make_file_readable(path, status)


def _make_file_readable(path: Path, status: os.stat_result) -> None:
    if status.st_nlink > 1:
        descriptor, copy = tempfile.mkstemp(dir=path.parent)
        os.close(descriptor)
        files.copy_file(str(path), copy)
        Path(copy).replace(path)
    _add_mode(path, READABLE_MODE | (0o111 if status.st_mode & 0o100 else 0))


def _add_mode(path: Path, bits: int) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode | bits != mode:
        path.chmod(mode | bits)


class Overlays:
    """Makes overlay volumes, until the engine refuses a volume."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client
        self._are_supported = True
        self._requires_read_only = is_podman(client) or is_rootless(client)
        """Whether only inputs that the container cannot change get overlays. Podman unmounts an overlay when its
        container ends, so the container's changes could not be copied out. A rootless engine may not use the option
        redirect_dir. Without this option, a job cannot rename folders of its inputs, such as checkpoints."""

    def divide(self, inputs: Sequence[Input]) -> tuple[list[Input], list[Input]]:
        """Return the inputs to overlay, which become readable for all users, and the inputs to copy."""
        overlaid = [item for item in inputs if self._can_overlay(item)]
        for item in overlaid:
            make_readable(item.source)
        return overlaid, [item for item in inputs if item not in overlaid]

    def _can_overlay(self, item: Input) -> bool:
        has_special_characters = bool(set(str(item.source)) & set(",:\\"))  # these characters separate mount options
        return self._are_supported and not has_special_characters and (item.read_only or not self._requires_read_only)

    def make_volume(self, source: Path, labels: Mapping[str, str]) -> str:
        """Make an overlay volume of a folder, and the two volumes that it needs for changes. Return the overlay's name.

        All three volumes have the labels by which they are removed together with their plan.
        """
        upper, work = (self._client.volumes.create(labels=dict(labels)).attrs["Mountpoint"] for _ in ("upper", "work"))
        mount = f"lowerdir={source},upperdir={upper},workdir={work}"
        if not self._requires_read_only:
            mount += ",redirect_dir=on"
        options = {"type": "overlay", "device": "overlay", "o": mount}
        name: str = self._client.volumes.create(driver="local", driver_opts=options, labels=dict(labels)).name
        return name

    def disable_if_refused(self, error: APIError) -> bool:
        """Return whether a container could not start because of an overlay. If so, make no more overlays."""
        if not any(message in str(error.explanation) for message in REFUSAL_MESSAGES):
            return False
        logger.warning("this engine cannot overlay folders, so inputs are copied: %s", error.explanation)
        self._are_supported = False
        return True
