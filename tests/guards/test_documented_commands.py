"""Commands in documentation and messages work in bash and zsh: both call the same programs with equal arguments."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from microjobs_orchestrator.cli import make_parser
from tests.documented import (
    PLACEHOLDER,
    code_blocks,
    inline_commands,
    list_pages,
    quoted_commands,
    unquoted_commands,
)

STUBS = (
    "aws",
    "cp",
    "curl",
    "docker",
    "git",
    "head",
    "make",
    "microjobs",
    "mkdir",
    "python",
    "python3.11",
    "sudo",
    "uv",
)
FILES = (".venv/bin/activate", "microjobs/README.md")
ENVIRONMENT_PROGRAMS = ("sdk/bin/pip", "sdk/bin/python", "sdk2/bin/pip", "sdk2/bin/python")
"""Programs of virtual environments that a page creates."""
STUB = """#!/bin/sh
printf '%s\\n' "${0##*/}$(printf ' <%s>' "$@")" >> "$CALLS"
"""
SHELLS = {"bash": ["bash", "--noprofile", "--norc", "-i"], "zsh": ["zsh", "-fis"]}
"""Interactive shells: in them, zsh does not treat `#` as a comment, and both shells expand `!` in double quotes."""

CODE_BLOCKS = [snippet for page in list_pages() for snippet in code_blocks(page)]
INLINE_COMMANDS = [
    *(snippet for page in list_pages() for snippet in inline_commands(page)),
    *quoted_commands(),
    *unquoted_commands(),
]

Paste = Callable[[str, str], list[str]]


@pytest.fixture
def paste(tmp_path: Path) -> Paste:
    """A function that runs lines in a shell, and returns the calls of programs with their arguments."""
    folder, stubs = tmp_path / "a folder", tmp_path / "stubs"
    stubs.mkdir()
    for name in STUBS:
        (stubs / name).write_text(STUB)
        (stubs / name).chmod(0o755)
    for name in ENVIRONMENT_PROGRAMS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(STUB)
        (folder / name).chmod(0o755)
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()

    def paste(shell: str, text: str) -> list[str]:
        calls = tmp_path / f"calls-{shell}"
        calls.write_text("")
        environment = {"PATH": f"{stubs}", "CALLS": str(calls), "HOME": str(tmp_path), "TERM": "dumb"}
        program = [shutil.which(shell) or shell, *SHELLS[shell][1:]]
        subprocess.run(
            program, input=f"{text}\n", cwd=folder, env=environment, capture_output=True, text=True, timeout=60
        )
        return sorted(calls.read_text().splitlines()) if "|" in text else calls.read_text().splitlines()

    return paste


SOURCES = sorted({str(snippet.path) for snippet in (*CODE_BLOCKS, *INLINE_COMMANDS)})


def test_blocks_have_no_comments() -> None:
    assert [str(snippet) for snippet in CODE_BLOCKS if re.search(r"(?:^|\s)#", snippet.text)] == []


@pytest.mark.parametrize("source", SOURCES)
def test_bash_and_zsh_make_the_same_calls(source: str, paste: Paste) -> None:
    require_zsh()
    for snippet in (*CODE_BLOCKS, *INLINE_COMMANDS):
        if str(snippet.path) == source:
            bash_calls = paste("bash", snippet.text)
            assert paste("zsh", snippet.text) == bash_calls, snippet
            first = snippet.text.split()[0]
            assert first not in STUBS or any(line.startswith(first) for line in bash_calls), snippet


def require_zsh() -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")


@pytest.mark.parametrize(
    "text", ["make x # `make run`", "aws --query Stacks[0].Outputs", "curl http://a/b?c=d", "cp $PWD/a b"]
)
def test_differences_between_shells_are_found(text: str, paste: Paste) -> None:
    require_zsh()
    assert paste("bash", text) != paste("zsh", text)


def test_commands_at_the_end_of_messages_contain_no_prose() -> None:
    assert [
        str(snippet) for snippet in unquoted_commands() if re.search(r"(?:,|;) (?:then|or|and) ", snippet.text)
    ] == []


def list_microjobs_commands() -> list[tuple[str, str]]:
    texts = [
        *((str(item), item.text) for item in CODE_BLOCKS),
        *((f"span {item}", item.text) for item in INLINE_COMMANDS),
    ]
    lines = [(location, line) for location, text in texts for line in re.split(r"\n|&&", text)]
    return [(location, line.strip()) for location, line in lines if line.strip().startswith("microjobs ")]


@pytest.mark.parametrize(("location", "line"), list_microjobs_commands())
def test_microjobs_commands_are_valid(location: str, line: str) -> None:
    arguments = shlex.split(line, comments=False)[1:]
    if location.startswith("span "):  # a sentence can name a command without its required arguments
        arguments.append("--help")
    assert any(
        is_valid([argument.replace(PLACEHOLDER, value) for argument in arguments])
        for value in ("housing", "serve", "bash")
    ), location


def is_valid(arguments: list[str]) -> bool:
    try:
        make_parser().parse_args(arguments)
    except SystemExit as error:
        return error.code == 0  # the exit code of --help
    return True
