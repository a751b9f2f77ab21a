"""Changes of environment variables that direct AWS clients to the local server, and the shell commands for them."""

import json
import shlex
from collections.abc import Iterator, Mapping

SAVED = "MICROJOBS_SAVED_ENVIRONMENT"
"""The variable that keeps the shell's earlier values, as JSON; null stands for a variable that was not set."""

CONFLICTING = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
)
"""Variables that would give clients other credentials, or let them ignore the address."""

SERVICE_ADDRESS = "AWS_ENDPOINT_URL_"
"""The start of the names of variables that give the clients of one service another address."""

Changes = Mapping[str, str | None]
"""New values of variables. None: the variable is removed."""


def list_changes(values: Mapping[str, str], environ: Mapping[str, str]) -> Changes:
    """Return the changes that set variables, and that save their earlier values unless these are already saved."""
    addresses = [name for name in environ if name.startswith(SERVICE_ADDRESS)]
    changes: dict[str, str | None] = {**values, **dict.fromkeys([*CONFLICTING, *addresses])}
    saved = {name: environ.get(name) for name in changes} | json.loads(environ.get(SAVED, "{}"))
    return {**changes, SAVED: json.dumps(saved)}


def list_restorations(environ: Mapping[str, str]) -> Changes:
    """Return the changes that restore all variables; none if nothing was changed."""
    return {**json.loads(environ[SAVED]), SAVED: None} if SAVED in environ else {}


def format_commands(changes: Changes) -> Iterator[str]:
    """Yield the commands that make changes."""
    for name, value in changes.items():
        yield f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}"
