"""Commands in documentation and messages work in bash and zsh: both shells call programs with equal arguments."""

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
    Snippet,
    find_code_blocks,
    find_inline_commands,
    find_quoted_commands,
    find_unquoted_commands,
    list_files_with_messages,
    list_pages,
)

STUBBED_PROGRAMS = (
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
"""Programs on the PATH of the shells. Each program is a stub."""
NEEDED_FILES = (".venv/bin/activate", "microjobs/README.md")
"""Files that commands read."""
ENVIRONMENT_PROGRAMS = ("sdk/bin/pip", "sdk/bin/python", "sdk2/bin/pip", "sdk2/bin/python")
"""Programs of virtual environments that a page creates."""
STUB = """#!/bin/sh
printf '%s\\n' "${0##*/}$(printf ' <%s>' "$@")" >> "$CALLS"
"""
"""Program that appends its name and its arguments to the file `$CALLS`."""
SHELLS = {"bash": ["bash", "--noprofile", "--norc", "-i"], "zsh": ["zsh", "-fis"]}
"""Interactive shells: in them, zsh does not treat `#` as a comment, and both shells expand `!` in double quotes."""

PAGES = list_pages()
SOURCES = [*PAGES, *list_files_with_messages()]
"""The files that may contain commands. The tests parse the files when they run: if the import of this module parsed
them, each pytest worker would parse all files."""

Paste = Callable[[str, str], list[str]]


@pytest.fixture
def paste(tmp_path: Path) -> Paste:
    """A function that runs lines in a shell, and returns the calls of programs with their arguments.

    The programs of a pipe start in any order, so their calls are sorted.
    """
    folder, stubs = tmp_path / "a folder", tmp_path / "stubs"
    stubs.mkdir()
    for name in STUBBED_PROGRAMS:
        (stubs / name).write_text(STUB)
        (stubs / name).chmod(0o755)
    for name in ENVIRONMENT_PROGRAMS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(STUB)
        (folder / name).chmod(0o755)
    for name in NEEDED_FILES:
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


def list_inline_commands(source: Path) -> list[Snippet]:
    """Return the commands in the sentences of a page, or in the messages of a file."""
    if source in PAGES:
        return [*find_inline_commands(source)]
    return [*find_quoted_commands(source), *find_unquoted_commands(source)]


def list_blocks(source: Path) -> list[Snippet]:
    return [*find_code_blocks(source)] if source in PAGES else []


def test_blocks_have_no_comments() -> None:
    blocks = [snippet for page in PAGES for snippet in find_code_blocks(page)]
    assert [str(snippet) for snippet in blocks if re.search(r"(?:^|\s)#", snippet.text)] == []


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_bash_and_zsh_make_the_same_calls(source: Path, paste: Paste) -> None:
    require_zsh()
    for snippet in (*list_blocks(source), *list_inline_commands(source)):
        bash_calls = paste("bash", snippet.text)
        assert paste("zsh", snippet.text) == bash_calls, snippet
        program = snippet.text.split()[0]
        assert program not in STUBBED_PROGRAMS or any(line.startswith(program) for line in bash_calls), snippet


def require_zsh() -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")


@pytest.mark.parametrize(
    "text", ["make x # `make run`", "aws --query Stacks[0].Outputs", "curl http://a/b?c=d", "cp $PWD/a b"]
)
def test_paste_shows_differences_between_shells(text: str, paste: Paste) -> None:
    require_zsh()
    assert paste("bash", text) != paste("zsh", text)


def test_commands_at_the_end_of_messages_contain_no_prose() -> None:
    commands = [snippet for source in SOURCES if source not in PAGES for snippet in find_unquoted_commands(source)]
    assert len(commands) > 10
    assert [str(snippet) for snippet in commands if re.search(r"(?:,|;) (?:then|or|and) ", snippet.text)] == []


def list_microjobs_commands(snippets: list[Snippet]) -> list[str]:
    lines = [line.strip() for snippet in snippets for line in re.split(r"\n|&&", snippet.text)]
    return [line for line in lines if line.startswith("microjobs ")]


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_microjobs_commands_are_valid(source: Path) -> None:
    block_commands, inline_commands = (
        list_microjobs_commands(find(source)) for find in (list_blocks, list_inline_commands)
    )
    lines = [
        *block_commands,
        *(f"{line} --help" for line in inline_commands),
    ]  # a sentence can leave out required arguments
    assert [line for line in lines if not is_valid(shlex.split(line)[1:])] == []


def is_valid(arguments: list[str]) -> bool:
    """Return whether `microjobs` accepts the arguments when one of three names replaces each placeholder."""
    names = ("housing", "serve", "bash")
    return any(is_accepted([argument.replace(PLACEHOLDER, name) for argument in arguments]) for name in names)


def is_accepted(arguments: list[str]) -> bool:
    try:
        make_parser().parse_args(arguments)
    except SystemExit as error:
        return error.code == 0  # the exit code of --help
    return True
