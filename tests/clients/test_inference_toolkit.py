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
from tests.clients.inference.cases import DIFFERENCES, PROGRAMS, REFUSED_AT_START, dump
from tests.conftest import CONTAINERS, REPOSITORY

Answers = dict[str, Any]
"""What a program answers: `failed`, why it cannot be loaded, and `answers` with status, type, headers and body."""

FOLDER = Path(__file__).with_name("inference")


def run(python: Path, script: str, folder: Path, **environment: str) -> list[Answers]:
    """The answers of all programs, in order."""
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
    unlike = {
        name
        for name, theirs, mine in zip(PROGRAMS, real, ours, strict=True)
        if bool(theirs["failed"]) != bool(mine["failed"])
    }
    assert unlike == REFUSED_AT_START


def test_answers_differ_only_where_it_is_intended(real: list[Answers], ours: list[Answers]) -> None:
    pairs = [*answered(real, ours)]
    unlike = {where: mine["status"] for where, theirs, mine in pairs if not alike(theirs, mine)}
    told = [f"{where}:\n  {shown(theirs)}\n  {shown(mine)}" for where, theirs, mine in pairs if where in unlike]
    assert unlike == DIFFERENCES, "\n".join(told)
    assert len(pairs) > 500


def test_users_code_is_blamed_only_where_it_failed(ours: list[Answers]) -> None:
    ends = (" raises", " returns", "context.")
    blamed = {
        name
        for name, mine in zip(PROGRAMS, ours, strict=True)
        for answer in mine["answers"]
        if "own code failed" in body(answer)
    }
    assert [name for name in blamed if not any(end in name for end in ends)] == []
    assert "predict_fn raises ValueError" in blamed


def answered(real: list[Answers], ours: list[Answers]) -> Iterator[tuple[tuple[str, str], Answers, Answers]]:
    """Where (program and request), and both answers."""
    for (name, program), theirs, mine in zip(PROGRAMS.items(), real, ours, strict=True):
        for asked, *both in zip(program.requests, theirs["answers"], mine["answers"], strict=False):
            yield (name, asked), both[0], both[1]


def alike(theirs: Answers, mine: Answers) -> bool:
    """Errors have their status in common: the toolkit's bodies are tracebacks, ours one sentence."""
    if theirs["status"] >= 400 and theirs["body"] != mine["body"]:
        return bool(theirs["status"] == mine["status"])
    return theirs == mine


def body(answer: Answers) -> str:
    return base64.b64decode(answer["body"]).decode(errors="replace")


def shown(answer: Answers) -> str:
    return f"{answer['status']} {answer['type']} {answer['headers']} {body(answer)[:200]!r}"
