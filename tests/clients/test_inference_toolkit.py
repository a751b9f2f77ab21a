"""Tests that handlers give the same results in AWS's inference toolkit and in serve."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environments import install_client_programs
from tests.clients.inference.cases import PROGRAMS, dump_programs
from tests.clients.inference.differences import DIFFERENCES, REJECTED_AT_START
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

ProgramResult = dict[str, Any]
"""The responses of a program (`answers`), and the reason why the program cannot be loaded (`failed`)."""
Response = dict[str, Any]
"""A response: `status`, `type`, `headers`, `body`."""

FOLDER = Path(__file__).with_name("inference")


def run_programs(python: Path, script: str, folder: Path, **environment: str) -> list[ProgramResult]:
    """Return the results of all programs, in order."""
    command = [str(python), "-W", "ignore", str(FOLDER / script), str(folder)]
    variables = {"PATH": os.environ["PATH"], **environment}
    result = subprocess.run(command, input=dump_programs(), env=variables, text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    program_results: list[ProgramResult] = json.loads(result.stdout)
    return program_results


@pytest.fixture(scope="module")
def toolkit_results(tmp_path_factory: pytest.TempPathFactory) -> list[ProgramResult]:
    return run_programs(
        install_client_programs("inference") / "python", "toolkit_handlers.py", tmp_path_factory.mktemp("toolkit")
    )


@pytest.fixture(scope="module")
def serve_results(tmp_path_factory: pytest.TempPathFactory) -> list[ProgramResult]:
    modules = str(REPOSITORY / "shared")
    return run_programs(Path(sys.executable), "serve_handlers.py", tmp_path_factory.mktemp("serve"), PYTHONPATH=modules)


def test_same_programs_are_loaded(toolkit_results: list[ProgramResult], serve_results: list[ProgramResult]) -> None:
    different = {
        name
        for name, toolkit, serve in zip(PROGRAMS, toolkit_results, serve_results, strict=True)
        if bool(toolkit["failed"]) != bool(serve["failed"])
    }
    assert different == REJECTED_AT_START


def test_only_intended_responses_differ(
    toolkit_results: list[ProgramResult], serve_results: list[ProgramResult]
) -> None:
    pairs = [*pair_responses(toolkit_results, serve_results)]
    different = {key: serve["status"] for key, toolkit, serve in pairs if not is_equivalent(toolkit, serve)}
    details = [
        f"{key}:\n  {format_response(toolkit)}\n  {format_response(serve)}"
        for key, toolkit, serve in pairs
        if key in different
    ]
    unexpected = {key: status for key, status in different.items() if DIFFERENCES.get(key) != status}
    assert (unexpected, DIFFERENCES.keys() - different.keys()) == ({}, set()), "\n".join(details)
    assert len(pairs) > 500


def test_only_failures_of_user_code_are_reported_as_failures_of_user_code(serve_results: list[ProgramResult]) -> None:
    code_failures = (" raises", " returns", "context.")
    reported = {
        name
        for name, serve in zip(PROGRAMS, serve_results, strict=True)
        for response in serve["answers"]
        if "own code failed" in decode_body(response)
    }
    assert [name for name in reported if not any(text in name for text in code_failures)] == []
    assert "predict_fn raises ValueError" in reported


def pair_responses(
    toolkit_results: list[ProgramResult], serve_results: list[ProgramResult]
) -> Iterator[tuple[tuple[str, str], Response, Response]]:
    """Yield the names of a program and a request, the toolkit's response, and the response of serve."""
    for (name, program), toolkit, serve in zip(PROGRAMS.items(), toolkit_results, serve_results, strict=True):
        responses = zip(program.requests, toolkit["answers"], serve["answers"], strict=False)
        for request, toolkit_response, serve_response in responses:
            yield (name, request), toolkit_response, serve_response


def is_equivalent(toolkit: Response, serve: Response) -> bool:
    """Return whether two responses are equal. Errors with different bodies are equal if they have the same status,
    because the bodies of the toolkit's errors are tracebacks."""
    if toolkit["status"] >= 400 and toolkit["body"] != serve["body"]:
        return bool(toolkit["status"] == serve["status"])
    return toolkit == serve


def decode_body(response: Response) -> str:
    return base64.b64decode(response["body"]).decode(errors="replace")


def format_response(response: Response) -> str:
    return f"{response['status']} {response['type']} {response['headers']} {decode_body(response)[:200]!r}"
