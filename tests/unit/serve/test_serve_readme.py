"""The examples in serve's README."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from microjobs.contract import Layout
from tests.conftest import CONTAINERS, REPOSITORY
from tests.documented import find_code_blocks
from tests.ports import find_free_port
from tests.unit.serve.conftest import Server

PAGE = Path("containers/serve/README.md")
START_COMMAND, REQUEST_COMMAND, FORMAT_COMMANDS, TEXT_COMMAND = [snippet.text for snippet in find_code_blocks(PAGE)]
(PROGRAM,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / PAGE).read_text(), re.DOTALL)


HOSTING_PAGE = REPOSITORY / "docs" / "using" / "hosting.md"


def test_hosting_page_lists_each_image_that_serves() -> None:
    (header,) = re.findall(r"^\| in the model folder \| (.*) \|$", HOSTING_PAGE.read_text(), re.MULTILINE)
    images = {path.relative_to(CONTAINERS).parts[0] for path in CONTAINERS.glob("*/microjobs_*/**/model_source.py")}
    assert set(header.split(" | ")) == images


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder like a clone of the repository in which `make setup` has run."""
    for name in (".venv", "containers", "shared", "tests"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    make = tmp_path / "bin" / "make"
    make.parent.mkdir()
    make.write_text('#!/bin/sh\n[ "$*" = setup ]\n')
    make.chmod(0o755)
    return tmp_path


def make_environment(clone: Path, port: int) -> dict[str, str]:
    return {"PATH": f"{clone / 'bin'}:{os.defpath}", "SAGEMAKER_BIND_TO_PORT": str(port), "HOME": str(clone)}


def run_block(clone: Path, port: int, block: str) -> str:
    """Run a block with a port other than 8080, which may be in use, and return its output."""
    text = block.replace(":8080", f":{port}")
    result = subprocess.run(
        ["bash", "-e"],
        input=text,
        cwd=clone,
        env=make_environment(clone, port),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@contextmanager
def run_documented_server(clone: Path) -> Iterator[int]:
    """Start the server with the first block of the page, and yield its port."""
    port = find_free_port()
    with (clone / "log.txt").open("wb") as log:
        shell = subprocess.Popen(
            ["bash", "-ec", f"{START_COMMAND}"], cwd=clone, env=make_environment(clone, port), stdout=log, stderr=log
        )
    server = Server(Layout(clone / "run"), port, clone / "log.txt", shell)
    try:
        server.wait_until_ready()
        assert server.find_logged_problems() == []
        yield port
    finally:
        server.stop()


def test_examples_are_answered(clone: Path) -> None:
    with run_documented_server(clone) as port:
        assert run_block(clone, port, REQUEST_COMMAND) == '{"predictions":[[6.0]]}'
        assert run_block(clone, port, FORMAT_COMMANDS).splitlines() == ['{"predictions":[[6.0]]}6.0', "6.0"]
    assert (clone / "predictions.npy").read_bytes().startswith(b"\x93NUMPY")


@pytest.mark.parametrize("content_type", ["text/plain", "text/csv", "application/json", "application/octet-stream"])
def test_users_code_answers_each_content_type(clone: Path, content_type: str) -> None:
    code = clone / "run" / "model" / "code"
    code.mkdir(parents=True)
    (code / "inference.py").write_text(PROGRAM)
    (code.parent / "weights.txt").write_text("!")
    with run_documented_server(clone) as port:
        assert run_block(clone, port, TEXT_COMMAND.replace("text/plain", content_type)) == "HELLO!"
