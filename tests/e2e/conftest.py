"""A separate checkout and Compose project for each test, so that the user's files and containers do not change."""

import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, list_tracked_files
from tests.ports import find_free_port

OWNER_ID = 12345
"""ID of a user that owns the checkout, and is not the user who runs the tests."""


def _enable_interrupts() -> None:
    """Enable SIGINT, as in a terminal. If the tests run in the background, SIGINT is ignored, and a shell script that
    starts in this state cannot handle it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class ComposeProject:
    """The jobs of docker-compose.yml in a clean checkout."""

    checkout: Path
    name: str
    port: int
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def artifacts(self) -> Path:
        return self.checkout / "artifacts"

    @property
    def environment(self) -> dict[str, str]:
        own_variables = {"COMPOSE_PROJECT_NAME": self.name, "PORT": str(self.port), "COMPOSE_ANSI": "never"}
        return os.environ | own_variables | self.settings

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        """Start the jobs. An override such as `four-hosts` adds the Compose file docker-compose.four-hosts.yml."""
        files = [f"--file=docker-compose.{name}yml" for name in ("", *(f"{override}." for override in overrides))]
        return subprocess.Popen(
            ["scripts/run-compose", *files],
            cwd=self.checkout,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=_enable_interrupts,
        )

    def run(self, *overrides: str, exit_code: int = 0) -> str:
        """Run the jobs until the report is printed or a job fails, and return the output."""
        process = self.start(*overrides)
        try:
            output, _ = process.communicate(timeout=300)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        assert process.returncode == exit_code, output[-5000:]
        return output

    def run_service(self, service: str) -> None:
        """Run one job, and the jobs on which it depends."""
        command = ["docker", "compose", "run", "--rm", service]
        subprocess.run(command, cwd=self.checkout, env=self.environment, check=True, capture_output=True)

    def run_compose_up_until(self, text: str) -> str:
        """Run `docker compose up` until it prints a text. Return its output."""
        command = ["docker", "compose", "up"]
        process = subprocess.Popen(
            command,
            cwd=self.checkout,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if text in line:
                break
        process.terminate()
        process.communicate(timeout=60)
        assert text in lines[-1], "".join(lines)[-5000:]
        return "".join(lines)

    def read_log(self, service: str) -> str:
        command = ["docker", "compose", "logs", "--no-color", "--no-log-prefix", service]
        logs = subprocess.run(
            command, cwd=self.checkout, env=self.environment, capture_output=True, text=True, check=True
        )
        return logs.stdout

    def remove_images(self) -> None:
        remove_images(self.settings["TAG"])

    def down(self) -> None:
        subprocess.run(["make", "down"], cwd=self.checkout, env=self.environment, check=True, capture_output=True)

    def list_leftovers(self) -> list[str]:
        """Return the names of the project's containers, networks and volumes that still exist."""
        leftovers = []
        for object_type, *options in (["container", "--all"], ["network"], ["volume"]):
            command = ["docker", object_type, "ls", "--quiet", *options]
            label = f"label=com.docker.compose.project={self.name}"
            listed = subprocess.run([*command, "--filter", label], capture_output=True, text=True, check=True)
            leftovers += [f"{object_type} {name}" for name in listed.stdout.split()]
        return leftovers


def remove_images(tag: str) -> None:
    """Remove the images of a tag by name, because an image may also have another tag."""
    command = ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference=*/*:{tag}"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    subprocess.run(["docker", "image", "rm", *names], capture_output=True, check=False)


def copy_tracked_files(target: Path) -> None:
    for path in list_tracked_files():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / path, target / path, follow_symlinks=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    copy_tracked_files(folder)
    return folder


@pytest.fixture
def compose_project(checkout: Path) -> Iterator[ComposeProject]:
    name = f"microjobs-test-{uuid.uuid4().hex[:8]}"
    project = ComposeProject(checkout, name, find_free_port(), {"EPOCHS": "3"})
    try:
        yield project
    finally:
        project.down()
