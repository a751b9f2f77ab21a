"""An AWS account for tests: the local server answers in place of AWS."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.home import HOME_VARIABLE
from microjobs_orchestrator.local.identity import ACCOUNT, REGION
from tests.conftest import JOBS, make_image_name
from tests.local.clients import LocalServer, run_server

REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/microjobs"
DIGEST = "sha256:" + "0" * 64
IMAGE_URIS = {job: f"{REGISTRY}/{job}@{DIGEST}" for job in JOBS}
"""URIs of the pushed images, by job."""
MICROJOBS = str(Path(sys.executable).with_name("microjobs"))


def write_pushed_images(home: Path) -> None:
    """Write the file that `microjobs push` writes after it has pushed all images."""
    home.mkdir(exist_ok=True)
    details = {"tag": "t", "revision": "r", "image": "i", "time": "2026-11-22T10:00:00+00:00"}
    record = {REGISTRY: {job: {"uri": uri, **details} for job, uri in IMAGE_URIS.items()}}
    (home / "images.json").write_text(json.dumps(record))


@dataclass(frozen=True)
class Account:
    """A local server that replaces AWS, and the folder in which the tests run `microjobs`."""

    server: LocalServer
    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / ".microjobs"

    def make_environment(self) -> dict[str, str]:
        variables = {
            key: value for key, value in os.environ.items() if not key.startswith("AWS_") and key != HOME_VARIABLE
        }
        return {**variables, **control.make_environment(self.server.home, self.server.address), "PYTHONUNBUFFERED": "1"}

    def start_microjobs(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [MICROJOBS, *words],
            cwd=self.folder,
            env=self.make_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run_microjobs(self, *words: str) -> subprocess.CompletedProcess[str]:
        with self.start_microjobs(*words) as process:
            try:
                out, err = process.communicate(timeout=300)
            finally:
                process.kill()
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def list_running_resources(self) -> list[str]:
        """Return the names of unfinished jobs, and of all endpoints, endpoint configurations and models.

        No workflow has transform jobs, so they are not listed.
        """
        sagemaker = self.server.sagemaker
        names: list[str] = []
        for noun in ("ProcessingJob", "TrainingJob", "HyperParameterTuningJob"):
            list_jobs = getattr(sagemaker, f"list_{to_snake_case(noun)}s")
            for status in ("InProgress", "Stopping"):
                summaries = list_jobs(StatusEquals=status)[f"{noun}Summaries"]
                names += [summary[f"{noun}Name"] for summary in summaries]
        for noun in ("Endpoint", "EndpointConfig", "Model"):
            resources: list[dict[str, Any]] = getattr(sagemaker, f"list_{to_snake_case(noun)}s")()[f"{noun}s"]
            names += [resource[f"{noun}Name"] for resource in resources]
        return names


def to_snake_case(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


@contextmanager
def open_account(folder: Path) -> Iterator[Account]:
    """Start a server that uses this machine's images in place of those in the registry; write the settings for it."""
    with run_server(
        folder / "aws", runtime="docker", images={uri: make_image_name(job) for job, uri in IMAGE_URIS.items()}
    ) as server:
        account = Account(server, folder)
        write_pushed_images(account.home)
        (folder / "microjobs.toml").write_text(
            f'[aws]\nregion = "{REGION}"\nrole = "{server.address.role_arn}"\nbucket = "{server.address.bucket}"\n'
        )
        yield account
