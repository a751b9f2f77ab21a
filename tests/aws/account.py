"""An account for tests: the local server in the place of AWS."""

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
from microjobs_orchestrator.local.home import HOME
from microjobs_orchestrator.local.identity import ACCOUNT, REGION
from tests.conftest import JOBS, image_name
from tests.local.clients import LocalServer, running_server

REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/microjobs"
DIGEST = "sha256:" + "0" * 64
URIS = {job: f"{REGISTRY}/{job}@{DIGEST}" for job in JOBS}
MICROJOBS = str(Path(sys.executable).with_name("microjobs"))


def write_pushed_images(home: Path) -> None:
    """Write the file that `microjobs push` writes after it has pushed all images."""
    home.mkdir(exist_ok=True)
    rest = {"tag": "t", "revision": "r", "image": "i", "time": "2026-11-22T10:00:00+00:00"}
    record = {REGISTRY: {job: {"uri": uri, **rest} for job, uri in URIS.items()}}
    (home / "images.json").write_text(json.dumps(record))


@dataclass(frozen=True)
class Account:
    """A server in the place of AWS, and the folder in which `microjobs` is called."""

    local: LocalServer
    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / ".microjobs"

    def environment(self) -> dict[str, str]:
        variables = {key: value for key, value in os.environ.items() if not key.startswith("AWS_") and key != HOME}
        return {**variables, **control.make_environment(self.local.home, self.local.address), "PYTHONUNBUFFERED": "1"}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [MICROJOBS, *words],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def microjobs(self, *words: str) -> subprocess.CompletedProcess[str]:
        with self.start(*words) as running:
            try:
                out, err = running.communicate(timeout=300)
            finally:
                running.kill()
        return subprocess.CompletedProcess(words, running.returncode, out, err)

    def list_running(self) -> list[str]:
        """Return the names of unfinished jobs, and of all endpoints, endpoint configurations and models."""
        sagemaker = self.local.sagemaker
        names: list[str] = []
        for word in ("ProcessingJob", "TrainingJob", "HyperParameterTuningJob"):
            lister = getattr(sagemaker, f"list_{to_snake_case(word)}s")
            for status in ("InProgress", "Stopping"):
                summaries = lister(StatusEquals=status)[f"{word}Summaries"]
                names += [summary[f"{word}Name"] for summary in summaries]
        for word in ("Endpoint", "EndpointConfig", "Model"):
            rows: list[dict[str, Any]] = getattr(sagemaker, f"list_{to_snake_case(word)}s")()[f"{word}s"]
            names += [row[f"{word}Name"] for row in rows]
        return names


def to_snake_case(word: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in word).lstrip("_")


@contextmanager
def open_account(folder: Path) -> Iterator[Account]:
    """Start an account whose registry has this machine's images, and write its settings."""
    with running_server(
        folder / "aws", runtime="docker", images={uri: image_name(job) for job, uri in URIS.items()}
    ) as local:
        account = Account(local, folder)
        write_pushed_images(account.home)
        (folder / "microjobs.toml").write_text(
            f'[aws]\nregion = "{REGION}"\nrole = "{local.address.role_arn}"\nbucket = "{local.address.bucket}"\n'
        )
        yield account
