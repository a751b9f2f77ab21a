"""The Docker engine: whether it answers, and whether it runs on this machine."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from microjobs_orchestrator.doctor.check import Finding

DEFAULT_SOCKET = "unix:///var/run/docker.sock"


@dataclass(frozen=True)
class Engine:
    environ: Mapping[str, str]
    name: str = "the Docker engine"

    def run(self) -> Iterator[Finding]:
        from docker.errors import DockerException

        from microjobs_orchestrator import docker_engine

        try:
            client = docker_engine.connect(timeout=10, environ=self.environ)
            try:
                version = client.version()["Version"]
                has_gpu_runtime = "nvidia" in client.info().get("Runtimes", {})
            finally:
                client.close()
        except DockerException as error:
            yield no_engine(str(error), self.environ.get("DOCKER_HOST", ""), context_address())
            return
        yield Finding(
            "ok", f"Docker engine {version}" + (", with NVIDIA's runtime for GPUs" if has_gpu_runtime else "")
        )
        address = self.environ.get("DOCKER_HOST") or context_address()
        if address.startswith(("tcp://", "ssh://", "http")):
            yield Finding(
                "problem",
                f"the Docker engine runs on another machine, {address}, and cannot use this machine's folders",
                "`docker context use default` and `unset DOCKER_HOST`, or run with `--runtime process`",
            )


def no_engine(error: str, docker_host: str, context: str) -> Finding:
    """Return the finding for an engine that does not answer.

    Args:
        error: the client's message.
        docker_host: DOCKER_HOST; empty if it is not set.
        context: the address of the Docker CLI's current context; empty if it is not known.
    """
    if "Permission denied" in error or "PermissionError" in error:
        message = "this user is not allowed to use the Docker engine's socket"
        return Finding("problem", message, '`sudo usermod -aG docker "$USER"`, then log in again')
    if docker_host:
        message = f"no Docker engine answers at DOCKER_HOST={docker_host}"
        return Finding("problem", message, "start it, or unset DOCKER_HOST")
    if context and context != DEFAULT_SOCKET:
        return Finding("problem", f"the Docker engine is at {context}", f"export DOCKER_HOST={context}")
    return Finding(
        "note",
        "no Docker engine answers: jobs run as processes in virtual environments",
        "start Docker, or install it: https://docs.docker.com/engine/install/",
    )


def context_address() -> str:
    """Return the address of the Docker CLI's current context; empty if it is not known."""
    command = ["docker", "context", "inspect"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        contexts: list[dict[str, Any]] = json.loads(output)
        return str(contexts[0]["Endpoints"]["docker"]["Host"])
    except (OSError, subprocess.SubprocessError, ValueError, LookupError):
        return ""
