"""A training job that a test controls step by step."""

from pathlib import Path
from typing import Any

from tests.local.clients import LocalServer


class Shell:
    """A training job that runs commands of the test."""

    def __init__(self, server: LocalServer, folder: Path, **members: Any) -> None:
        self._server, self._folder, self._command_count = server, folder, 0
        run_next = f"if [ -e {folder}/$n ]; then . {folder}/$n; n=$((n + 1)); else sleep 0.1; fi"
        self.name = server.start_training(f"n=0; while true; do {run_next}; done", **members)

    def run(self, command: str) -> None:
        """Let the job run a command after the earlier commands. Do not wait for its end."""
        file = self._folder / "new"
        file.write_text(command)
        file.rename(self._folder / str(self._command_count))
        self._command_count += 1

    def stop(self) -> None:
        self._server.sagemaker.stop_training_job(TrainingJobName=self.name)
