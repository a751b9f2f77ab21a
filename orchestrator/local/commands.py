"""`microjobs local up`, `down`, `status` and `env`."""

import argparse
import logging
import os
import re
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from microjobs_orchestrator.local import config
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.terminal import strip_controls

if TYPE_CHECKING:
    from microjobs_orchestrator.local.control import Address

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: "Subparsers") -> None:
    """Add the command `local` and its verbs. Each sets `call`, a function of the parsed options."""
    local = subparsers.add_parser("local", help="SageMaker on localhost: up, down, status, env")
    verbs = local.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("up", help="start the server, in the foreground or with --detach in the background")
    up.add_argument("--detach", "-d", action="store_true", help="return when the server answers")
    up.add_argument("--port", type=_port, help=f"default: {config.PORT}; 0: any that is free")
    up.add_argument("--runtime", choices=config.RUNTIMES, help="where jobs run; auto: docker if an engine answers")
    up.add_argument("--region", help="region in ARNs and in the default bucket's name; default: us-east-1")
    up.add_argument(
        "--limits",
        action="store_true",
        default=None,
        help="limit jobs to the processors and memory of their instance type",
    )
    up.add_argument(
        "--image-alias",
        type=_alias,
        action="append",
        metavar="URI=LOCAL",
        help="run the local image for an image URI, which may contain *; repeatable",
    )
    up.add_argument(
        "--guard-image",
        metavar="IMAGE",
        help="image with Python 3 for the guards of endpoints and isolated jobs; none: no guards",
    )
    up.add_argument(
        "--service",
        type=_service,
        action="append",
        metavar="NAME=URL",
        help="forward requests for another AWS service to an emulator; repeatable",
    )
    up.add_argument("--tied", action="store_true", help=argparse.SUPPRESS)  # stops with its users
    up.set_defaults(call=_up)
    verbs.add_parser("down", help="stop the server and all that runs on it").set_defaults(call=_down)
    verbs.add_parser("status", help="show whether the server runs, and its address").set_defaults(call=_status)
    env = verbs.add_parser("env", help='print variables for clients: eval "$(microjobs local env)"')
    env.add_argument(
        "--unset", action="store_true", help='restore the earlier values: eval "$(microjobs local env --unset)"'
    )
    env.set_defaults(call=_env)


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > config.MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a port: use a number from 0 to {config.MAX_PORT}")
    return int(text)


def _alias(text: str) -> tuple[str, str]:
    uri, equals, local = text.partition("=")
    if not (uri and equals and local):
        raise argparse.ArgumentTypeError(f"{text!r} is not an alias: use URI=LOCAL")
    return uri, local


class SafeFormatter(logging.Formatter):
    """Removes control sequences: records may contain file names and texts of jobs."""

    def format(self, record: logging.LogRecord) -> str:
        return strip_controls(super().format(record))


def _service(text: str) -> tuple[str, str]:
    name, _, url = text.partition("=")
    try:
        config.check_service("--service", name, url)
    except config.ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return name, url


def _config(options: argparse.Namespace) -> config.Config:
    flags: dict[str, Any] = {
        name: getattr(options, name) for name in ("port", "runtime", "region", "limits", "guard_image")
    }
    return config.merge_flags(
        config.load(),
        **flags,
        images=dict(options.image_alias or ()) or None,
        services=dict(options.service or ()) or None,
    )


def _up(options: argparse.Namespace) -> int:
    from microjobs_orchestrator.local import control

    home, chosen = Home.from_environment(), _config(options)
    if options.detach:
        if (address := control.await_server(home)) is None:
            address = control.start(home, chosen)
        elif ignored := _list_ignored_flags(options, address):
            raise control.ServerError(
                f"a server runs already for {home.root}, at {address.url} with runtime {address.runtime}, and cannot "
                f"take over {', '.join(ignored)}: end it with `microjobs local down`, or leave that out"
            )
        print(f"{address.url} answers, runtime {address.runtime} ({address.why}); buckets are in {home.buckets}")
        print('For clients: `eval "$(microjobs local env)"`. To end it: `microjobs local down`')
        return 0
    from microjobs_orchestrator.local.server import serve  # the import takes a second, and only the server needs it

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(SafeFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    serve(home, chosen, tied=options.tied)
    return 0


def _list_ignored_flags(options: argparse.Namespace, address: "Address") -> list[str]:
    """Return the flags that a running server does not follow, or may not follow."""
    same = {
        "port": options.port in (None, 0, urlsplit(address.url).port),
        "runtime": options.runtime in (None, "auto", address.runtime),
        "region": options.region in (None, address.region),
    }
    same |= {name: not getattr(options, name) for name in ("limits", "image_alias", "guard_image", "service")}
    return [f"--{name.replace('_', '-')}" for name, follows in same.items() if not follows]


def _down(_: argparse.Namespace) -> int:
    from microjobs_orchestrator.local import control

    home = Home.from_environment()
    print("ended" if control.stop(home) else f"no server runs for {home.root}")
    return 0


def _status(_: argparse.Namespace) -> int:
    from microjobs_orchestrator.local import control

    home = Home.from_environment()
    address = control.find_server(home)
    if address is None:
        print(control.explain_missing_server(home))
        return 1
    where = f"runtime {address.runtime} ({address.why}), region {address.region}"
    print(f"{address.url} answers, process {address.pid}, {where}")
    print(f"bucket s3://{address.bucket} is the folder {home.buckets / address.bucket}")
    return 0


def _env(options: argparse.Namespace) -> int:
    from microjobs_orchestrator.local import shell

    if options.unset:
        lines = shell.undo(os.environ)
    else:
        from microjobs_orchestrator.local import control

        home = Home.from_environment()
        if (address := control.find_server(home)) is None:
            raise control.ServerError(control.explain_missing_server(home))
        lines = shell.change(control.make_environment(home, address), os.environ)
    print("\n".join(lines))
    return 0
