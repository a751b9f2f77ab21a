"""The tools that build images: make, Compose and Buildx."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from microjobs_orchestrator.doctor.check import Finding

MIN_COMPOSE = (2, 24, 4)
"""The compose files use `!override` and inline configs, which are new in this version."""
MIN_BUILDX = (0, 12, 0)


@dataclass(frozen=True)
class BuildTools:
    name: str = "the tools that build images"

    def run(self) -> Iterator[Finding]:
        if shutil.which("make") is None:
            yield Finding("problem", "make is not installed, and images cannot be built without it", "install make")
        yield compare("Compose", _output(["docker", "compose", "version", "--short"]), MIN_COMPOSE)
        yield compare("Buildx", _output(["docker", "buildx", "version"]), MIN_BUILDX)


def compare(plugin: str, output: str, minimum: tuple[int, ...]) -> Finding:
    """Return the finding for a Docker plugin whose version command printed `output`."""
    needed = ".".join(map(str, minimum))
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", output)
    if match is None:
        message = f"Docker {plugin} is not installed, and images cannot be built without it"
        return Finding("problem", message, f"install Docker {plugin} {needed} or newer")
    if tuple(int(part) for part in match.groups()) < minimum:
        message = f"Docker {plugin} {match[0]} is too old"
        return Finding("problem", message, f"install Docker {plugin} {needed} or newer")
    return Finding("ok", f"Docker {plugin} {match[0]}")


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
