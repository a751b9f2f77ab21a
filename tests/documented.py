"""Commands in the documentation and in the messages of the code."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.conftest import REPOSITORY

PROGRAMS = (
    "aws", "cp", "curl", "docker", "eval", "export", "git", "make", "microjobs", "mkdir", "pip", "python", "sudo", "uv",
)  # fmt: skip
SHELLS = ("sh", "bash", "zsh", "shell")
_COMMAND_PATTERN = re.compile(rf"(?:{'|'.join(PROGRAMS)}) ")
_SPAN_PATTERN = re.compile(r"`([^`\n]+)`")
_COMMAND_HINT_PATTERN = re.compile(rf"`(?:{'|'.join(PROGRAMS)}) |microjobs (?!import)")
"""Matches the text of each file whose messages may contain a command."""
PLACEHOLDER = "X"
"""Text that replaces, in a snippet, each value that a message formats."""


@dataclass(frozen=True)
class Snippet:
    """A text in a file: a command, lines that a reader copies together, or a message of the code."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


def list_pages() -> list[Path]:
    """Return the pages of the documentation, relative to the repository, without CHANGELOG.md and the generated
    page parity.md."""
    files = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("containers/*/README.md")]
    files.append(REPOSITORY / "scripts" / "job-template" / "README.md")
    excluded_names = ("CHANGELOG.md", "parity.md")
    return sorted(path.relative_to(REPOSITORY) for path in files if path.name not in excluded_names)


def find_code_blocks(page: Path) -> Iterator[Snippet]:
    """Yield the indented blocks and the fenced shell blocks of a page."""
    language: str | None = None
    first_line, lines = 0, list[str]()
    for number, line in enumerate([*(REPOSITORY / page).read_text(encoding="utf-8").splitlines(), ""], 1):
        fence = re.match(r"```(\w*)", line)
        inside = not fence and (language in SHELLS if language is not None else line.startswith("    "))
        if inside:
            first_line = first_line or number
            lines.append(line if language is not None else line[4:])
        elif lines:
            yield Snippet(page, first_line, "\n".join(lines))
            first_line, lines = 0, []
        if fence:
            language = None if language is not None else fence[1]


def find_inline_commands(page: Path) -> Iterator[Snippet]:
    """Yield the commands in sentences and tables of a page."""
    for number, line in enumerate((REPOSITORY / page).read_text(encoding="utf-8").splitlines(), 1):
        for text in _SPAN_PATTERN.findall(line):
            if _COMMAND_PATTERN.match(text):
                yield Snippet(page, number, text.replace("\\|", "|"))


def find_quoted_commands(path: Path) -> Iterator[Snippet]:
    """Yield the commands in backquotes in the messages of a file."""
    for message in _read_messages(path):
        for text in _SPAN_PATTERN.findall(message.text):
            if _COMMAND_PATTERN.match(text):
                yield Snippet(message.path, message.line, text)


def find_unquoted_commands(path: Path) -> Iterator[Snippet]:
    """Yield the `microjobs` commands in messages that contain no backquote. A command ends at the end of its line."""
    command_pattern = re.compile(
        r"(?<![\w$(/])microjobs (?:run|build|push|local|ps|logs|stop|interrupt|init|doctor|clean) .*"
    )
    for message in _read_messages(path):
        for text in command_pattern.findall(message.text) if "`" not in message.text else ():
            yield Snippet(message.path, message.line, text)


def list_files_with_messages() -> list[Path]:
    """Return the Python files whose messages may contain a command, relative to the repository."""
    folders = ("orchestrator", "scripts", "containers", "shared", "bench")
    paths = (path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))
    return sorted(
        path.relative_to(REPOSITORY) for path in paths if _COMMAND_HINT_PATTERN.search(path.read_text(encoding="utf-8"))
    )


@cache
def _read_messages(path: Path) -> list[Snippet]:
    """Return all string literals in a file, without docstrings."""
    nodes = list(ast.walk(ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))))
    excluded_ids = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    excluded_ids |= {id(value) for node in nodes if isinstance(node, ast.JoinedStr) for value in node.values}
    return [
        Snippet(path, node.lineno, _format_text(node))
        for node in nodes
        if id(node) not in excluded_ids and isinstance(node, (ast.Constant, ast.JoinedStr))
    ]


def _format_text(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_format_text(value) for value in node.values)
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return PLACEHOLDER
