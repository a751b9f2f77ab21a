"""Changes of environment variables that direct AWS clients to the local server, and the shell commands for them."""

import json
import shlex
from collections.abc import Iterator, Mapping

SAVED_VARIABLE = "MICROJOBS_SAVED_ENVIRONMENT"
"""The variable in which the shell's earlier values are saved, as JSON. The value null stands for a variable that was
not set."""

CONFLICTING_VARIABLES = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
)
"""Variables that would give clients other credentials, or make them ignore the address."""

SERVICE_ADDRESS_PREFIX = "AWS_ENDPOINT_URL_"
"""The start of the names of variables that give the clients of one service another address."""

Changes = Mapping[str, str | None]
"""New values of variables. None stands for a variable that is removed."""


def list_changes(values: Mapping[str, str], environ: Mapping[str, str]) -> Changes:
    """Return the changes that set `values` and remove conflicting variables.

    The changes also save the earlier value of each variable, unless an earlier change has saved it.
    """
    addresses = [name for name in environ if name.startswith(SERVICE_ADDRESS_PREFIX)]
    changes: dict[str, str | None] = {**values, **dict.fromkeys([*CONFLICTING_VARIABLES, *addresses])}
    saved = {name: environ.get(name) for name in changes} | json.loads(environ.get(SAVED_VARIABLE, "{}"))
    return {**changes, SAVED_VARIABLE: json.dumps(saved)}


def list_restorations(environ: Mapping[str, str]) -> Changes:
    """Return the changes that restore all variables; empty if no variable was changed."""
    return {**json.loads(environ[SAVED_VARIABLE]), SAVED_VARIABLE: None} if SAVED_VARIABLE in environ else {}


def format_commands(changes: Changes) -> Iterator[str]:
    """Yield the commands that make changes."""
    for name, value in changes.items():
        yield f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}"
