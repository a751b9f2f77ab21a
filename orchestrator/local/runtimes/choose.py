"""Choice of the runtime."""

from docker.errors import DockerException

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.own_images import JOBS_FOLDER
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Runtime
from microjobs_orchestrator.local.runtimes.docker.runtime import DockerRuntime
from microjobs_orchestrator.local.runtimes.process.runtime import ProcessRuntime


def choose_runtime(name: str, home: Home, *, guard_image: str = "") -> tuple[Runtime, str]:
    """Return the named runtime, and the reason for the choice. `auto`: `docker` if an engine answers, else `process`.

    Raises:
        CannotRunError: the name is `docker`, and no engine answers.
    """
    if name == "process":
        return ProcessRuntime(home, JOBS_FOLDER), "as configured"
    try:
        runtime = DockerRuntime(home, guard_image=guard_image)
    except DockerException as error:
        reason = f"no Docker engine answers ({str(error).splitlines()[0]})"
        if name == "docker":
            raise CannotRunError(f"{reason}: start the engine, or use --runtime process") from error
        return ProcessRuntime(home, JOBS_FOLDER), reason
    return runtime, "a Docker engine answers" if name == "auto" else "as configured"
