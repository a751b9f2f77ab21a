"""Programs that are not hosts of jobs, such as MLflow. Each program runs in the environment of a lock file."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.runtimes.base import CannotRunError, MachineFailedError, Program
from microjobs_orchestrator.local.runtimes.process.environments import Environments
from microjobs_orchestrator.local.runtimes.process.managed_process import ManagedProcess, select_inherited_variables


class ProcessPrograms:
    """Starts programs, also if hosts run as containers. `jobs_folder` is the folder `containers` of this repository."""

    def __init__(self, home: Home, jobs_folder: Path) -> None:
        self._environments = Environments(home.environments.absolute(), jobs_folder.absolute())

    def start(
        self, name: str, lock_file: Path, arguments: Sequence[str], variables: Mapping[str, str], log: Path
    ) -> Program:
        if sys.platform != "linux":
            raise CannotRunError(f"{name} runs on Linux only, not on {sys.platform}: use the image of the server")
        environment = self._environments.ensure_from_lock_file(name, lock_file)
        inherited_variables = select_inherited_variables()
        search_path = f"{environment.bin}:{inherited_variables.get('PATH', os.defpath)}"
        try:
            log.unlink(missing_ok=True)
            return ManagedProcess(
                [str(environment.python), *arguments],
                {**inherited_variables, "PATH": search_path, "PYTHONUNBUFFERED": "1", **variables},
                log,
                temporary_folder_variables=("HOME",),
            )
        except OSError as error:
            raise MachineFailedError(f"{name} cannot be started: {error}") from error

    def close(self) -> None:
        self._environments.close()
