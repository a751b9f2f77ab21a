"""Starts a local server for a block of code, and directs the clients of this process to a server."""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from microjobs_orchestrator.library.local_server import LocalServer
from microjobs_orchestrator.local import config, control, shell, trees
from microjobs_orchestrator.local.home import Home


@contextmanager
def server(folder: str | Path | None = None, **settings: Any) -> Iterator[LocalServer]:
    """Start a local server, yield it, and stop it with its jobs and endpoints after the block.

    The server also stops if the block raises, at Ctrl-C, and when this process ends in any other way.

    Args:
        folder: the server's folder. By default, a temporary folder, which is removed after the block.
        settings: settings of the table `[local]` of `microjobs.toml`, such as `runtime="process"` or
            `images={"my-image:*": "my-image:dev"}`. They override the file in the current folder. Without the setting
            `port`, the server gets any free port, even if the file names a port.

    Raises:
        ConfigError: a setting is unknown or invalid.
        ServerError: the server does not start, or a server already runs for the folder.
        HomeError: the folder cannot be created, or other users have access to it.
    """
    server_config = _make_config(settings)
    with ExitStack() as cleanup:
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="microjobs-"))
            cleanup.callback(trees.remove, folder)
        home = Home(Path(folder).expanduser().absolute())
        if control.await_server(home) is not None:
            remedy = "use it with `microjobs.local.connect`, or stop it with `microjobs local down`"
            raise control.ServerError(f"a server already runs for {home.root}: {remedy}")
        yield LocalServer.from_address(home, cleanup.enter_context(control.use_server(home, server_config)))


def _make_config(settings: Mapping[str, Any]) -> config.Config:
    names = [field.name for field in fields(config.Config)]
    if unknown := sorted(settings.keys() - set(names)):
        raise config.ConfigError(f"a server has no setting {unknown[0]!r}; the settings are {', '.join(names)}")
    config.check_types(settings)
    return config.merge_flags(config.load(), **{"port": 0, **settings})


def connect(folder: str | Path | None = None) -> LocalServer:
    """Direct the AWS clients of this process to a running local server, until `disconnect`.

    This sets the environment variables that `microjobs local env` prints, and replaces boto3's default session.
    Existing clients and sessions keep their address.

    Args:
        folder: the server's folder; by default `.microjobs` in the current folder, or MICROJOBS_HOME.

    Raises:
        ServerError: no server runs for the folder.
    """
    home = Home.from_environment() if folder is None else Home(Path(folder).expanduser().absolute())
    if (address := control.find_server(home)) is None:
        raise control.ServerError(control.explain_missing_server(home))
    local_server = LocalServer.from_address(home, address)
    _set_variables_and_session(shell.list_changes(local_server.environment, os.environ))
    return local_server


def disconnect() -> None:
    """Restore the environment variables that this process, or its shell, had before the use of a local server."""
    _set_variables_and_session(shell.list_restorations(os.environ))


@contextmanager
def direct_clients(local_server: LocalServer) -> Iterator[None]:
    """Direct the AWS clients of this process to a server during a block.

    After the block, restore the environment variables and boto3's default session.
    """
    changes = shell.list_changes(local_server.environment, os.environ)
    earlier_values = {name: os.environ.get(name) for name in changes}
    session = getattr(sys.modules.get("boto3"), "DEFAULT_SESSION", None)
    _set_variables_and_session(changes)
    try:
        yield
    finally:
        _set_variables_and_session(earlier_values, session)


def _set_variables_and_session(values: Mapping[str, str | None], session: Any = None) -> None:
    """Set environment variables, and remove those with the value None. Set boto3's default session.

    If the session is None, the next call of boto3 creates one, with these variables.
    """
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if (boto3 := sys.modules.get("boto3")) is not None:
        boto3.DEFAULT_SESSION = session  # type: ignore[attr-defined]
