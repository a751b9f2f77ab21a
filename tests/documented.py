"""Commands in the documentation and in the messages of the tools."""

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
_COMMAND = re.compile(rf"(?:{'|'.join(PROGRAMS)}) ")
_SPAN = re.compile(r"`([^`\n]+)`")
_SIGN = re.compile(rf"`(?:{'|'.join(PROGRAMS)}) |microjobs (?!import)")
"""Matches in each file whose messages contain a command. Only these files are parsed, because each worker parses."""
PLACEHOLDER = "X"
"""Replaces a value that a message formats."""


@dataclass(frozen=True)
class Snippet:
    """Lines that a reader copies together."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


def list_pages() -> list[Path]:
    """Return the pages of the documentation, relative to the repository, without history and generated pages."""
    found = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("containers/*/README.md")]
    found.append(REPOSITORY / "scripts" / "job-template" / "README.md")
    left_out = ("CHANGELOG.md", "parity.md")
    return sorted(path.relative_to(REPOSITORY) for path in found if path.name not in left_out)


def code_blocks(page: Path) -> Iterator[Snippet]:
    """Yield the indented blocks and the fenced shell blocks of a page."""
    language: str | None = None
    begin, lines = 0, list[str]()
    for number, line in enumerate([*(REPOSITORY / page).read_text(encoding="utf-8").splitlines(), ""], 1):
        fence = re.match(r"```(\w*)", line)
        inside = not fence and (language in SHELLS if language is not None else line.startswith("    "))
        if inside:
            begin = begin or number
            lines.append(line if language is not None else line[4:])
        elif lines:
            yield Snippet(page, begin, "\n".join(lines))
            begin, lines = 0, []
        if fence:
            language = None if language is not None else fence[1]


def inline_commands(page: Path) -> Iterator[Snippet]:
    """Yield the commands in sentences and tables of a page."""
    for number, line in enumerate((REPOSITORY / page).read_text(encoding="utf-8").splitlines(), 1):
        for text in _SPAN.findall(line):
            if _COMMAND.match(text):
                yield Snippet(page, number, text.replace("\\|", "|"))


def quoted_commands() -> Iterator[Snippet]:
    """Yield the commands in backquotes in messages of the tools."""
    for message in _messages():
        for text in _SPAN.findall(message.text):
            if _COMMAND.match(text):
                yield Snippet(message.path, message.line, text)


def unquoted_commands() -> Iterator[Snippet]:
    """Yield the `microjobs` commands in messages without backquotes, with the rest of the line."""
    call = re.compile(r"(?<![\w$(/])microjobs (?:run|build|push|local|ps|logs|stop|interrupt|init|doctor|clean) .*")
    for message in _messages():
        for text in call.findall(message.text) if "`" not in message.text else ():
            yield Snippet(message.path, message.line, text)


@cache
def _messages() -> list[Snippet]:
    """Return all texts in the tools' code, without docstrings."""
    return list(_parse_messages())


def _parse_messages() -> Iterator[Snippet]:
    folders = ("orchestrator", "scripts", "containers", "shared", "bench")
    for path in sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if not _SIGN.search(source):
            continue
        nodes = list(ast.walk(ast.parse(source)))
        left_out = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        left_out |= {id(value) for node in nodes if isinstance(node, ast.JoinedStr) for value in node.values}
        for node in nodes:
            if id(node) not in left_out and isinstance(node, (ast.Constant, ast.JoinedStr)):
                yield Snippet(path.relative_to(REPOSITORY), node.lineno, _text(node))


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value) for value in node.values)
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return PLACEHOLDER
