"""The same handlers in AWS's inference toolkit and in serve, compared function by function."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environments import client_programs
from tests.clients.inference.cases import DIFFERENCES, PROGRAMS, REJECTED_AT_START, dump
from tests.conftest import CONTAINERS, REPOSITORY

Answers = dict[str, Any]
"""Results of a program: `failed` states why it cannot be loaded; `answers` have status, type, headers and body."""

FOLDER = Path(__file__).with_name("inference")


def run(python: Path, script: str, folder: Path, **environment: str) -> list[Answers]:
    """Return the results of all programs, in order."""
    command = [str(python), "-W", "ignore", str(FOLDER / script), str(folder)]
    variables = {"PATH": os.environ["PATH"], **environment}
    done = subprocess.run(command, input=dump(), env=variables, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    answers: list[Answers] = json.loads(done.stdout)
    return answers


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> list[Answers]:
    return run(client_programs("inference") / "python", "real.py", tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> list[Answers]:
    modules = os.pathsep.join([str(REPOSITORY / "shared"), str(CONTAINERS / "serve")])
    return run(Path(sys.executable), "ours.py", tmp_path_factory.mktemp("ours"), PYTHONPATH=modules)


def test_same_programs_are_loaded(real: list[Answers], ours: list[Answers]) -> None:
    different = {
        name
        for name, theirs, mine in zip(PROGRAMS, real, ours, strict=True)
        if bool(theirs["failed"]) != bool(mine["failed"])
    }
    assert different == REJECTED_AT_START


def test_only_intended_responses_differ(real: list[Answers], ours: list[Answers]) -> None:
    pairs = [*pair_responses(real, ours)]
    different = {where: mine["status"] for where, theirs, mine in pairs if not is_equivalent(theirs, mine)}
    details = [f"{where}:\n  {text(theirs)}\n  {text(mine)}" for where, theirs, mine in pairs if where in different]
    assert different == DIFFERENCES, "\n".join(details)
    assert len(pairs) > 500


def test_only_failures_of_user_code_are_reported_as_such(ours: list[Answers]) -> None:
    ends = (" raises", " returns", "context.")
    reported = {
        name
        for name, mine in zip(PROGRAMS, ours, strict=True)
        for answer in mine["answers"]
        if "own code failed" in body(answer)
    }
    assert [name for name in reported if not any(end in name for end in ends)] == []
    assert "predict_fn raises ValueError" in reported


def pair_responses(real: list[Answers], ours: list[Answers]) -> Iterator[tuple[tuple[str, str], Answers, Answers]]:
    """Yield program and request, and both responses."""
    for (name, program), theirs, mine in zip(PROGRAMS.items(), real, ours, strict=True):
        for request, *both in zip(program.requests, theirs["answers"], mine["answers"], strict=False):
            yield (name, request), both[0], both[1]


def is_equivalent(theirs: Answers, mine: Answers) -> bool:
    """Compare responses; of errors only the status, because the toolkit's bodies are tracebacks."""
    if theirs["status"] >= 400 and theirs["body"] != mine["body"]:
        return bool(theirs["status"] == mine["status"])
    return theirs == mine


def body(answer: Answers) -> str:
    return base64.b64decode(answer["body"]).decode(errors="replace")


def text(answer: Answers) -> str:
    return f"{answer['status']} {answer['type']} {answer['headers']} {body(answer)[:200]!r}"
