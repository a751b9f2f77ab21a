"""Choice of the runtime."""

from pathlib import Path

from docker.errors import DockerException

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Runtime
from microjobs_orchestrator.local.runtimes.docker.runtime import DockerRuntime
from microjobs_orchestrator.local.runtimes.process.runtime import ProcessRuntime

JOBS = Path(__file__).resolve().parents[3] / "containers"


def choose(wanted: str, home: Home, *, guard_image: str = "") -> tuple[Runtime, str]:
    """Return the runtime and the reason for choosing it.

    Args:
        wanted: `docker`, `process`, or `auto`: Docker if an engine answers, else `process`.

    Raises:
        CannotRunError: `docker` is wanted, and no engine answers.
    """
    if wanted == "process":
        return ProcessRuntime(home, JOBS), "it was asked for"
    try:
        runtime = DockerRuntime(home, guard_image=guard_image)
    except DockerException as error:
        reason = f"no Docker engine answers ({str(error).splitlines()[0]})"
        if wanted == "docker":
            raise CannotRunError(f"{reason}: start it, or take --runtime process") from error
        return ProcessRuntime(home, JOBS), reason
    return runtime, "a Docker engine answers" if wanted == "auto" else "it was asked for"
