"""Shell commands that direct AWS clients to the local server, and commands that undo this."""

import json
import shlex
from collections.abc import Iterator, Mapping

SAVED = "MICROJOBS_SAVED_ENVIRONMENT"
"""The variable that keeps the shell's earlier values, as JSON; null stands for a variable that was not set."""

CONFLICTING = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
"""Variables that would give clients other credentials."""


def change(values: Mapping[str, str], environ: Mapping[str, str]) -> Iterator[str]:
    """Yield commands that set variables. The first change also saves the earlier values."""
    for name, value in values.items():
        yield _export(name, value)
    yield f"unset {' '.join(CONFLICTING)}"
    if SAVED not in environ:
        yield _export(SAVED, json.dumps({name: environ.get(name) for name in (*values, *CONFLICTING)}))


def undo(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield commands that restore all variables; none if nothing was changed."""
    if (text := environ.get(SAVED)) is None:
        return
    saved: dict[str, str | None] = json.loads(text)
    for name, value in saved.items():
        yield f"unset {name}" if value is None else _export(name, value)
    yield f"unset {SAVED}"


def _export(name: str, value: str) -> str:
    return f"export {name}={shlex.quote(value)}"
