"""`microjobs local up`, `down`, `status`, `env` and `console`."""

import argparse
import gc
import json
import logging
import os
import re
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from microjobs_orchestrator.local import config, framework_images
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.terminal import strip_controls

if TYPE_CHECKING:
    from microjobs_orchestrator.local.control import Address

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: "Subparsers") -> None:
    """Add the command `local` and its verbs. Each verb sets `call`, a function that takes the parsed options."""
    local = subparsers.add_parser("local", help="the local server: up, down, status, env, console")
    verbs = local.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("up", help="start the server, in the foreground or with --detach in the background")
    up.add_argument("--detach", "-d", action="store_true", help="return when the server answers")
    up.add_argument("--port", type=_parse_port, help=f"default: {config.PORT}; 0: any free port")
    up.add_argument("--runtime", choices=config.RUNTIMES, help="where jobs run; auto: docker if an engine answers")
    up.add_argument("--region", help="region in ARNs and in the default bucket's name; default: us-east-1")
    limits = "limit jobs to the processors and memory of their instance type"
    up.add_argument("--limits", action="store_true", default=None, help=limits)
    everywhere = "listen on all addresses, not only on loopback; for a server in a container"
    up.add_argument("--all-addresses", action="store_true", default=None, help=everywhere)
    names = "accept requests that name this host, such as a Compose service; repeatable"
    up.add_argument("--host-name", action="append", metavar="NAME", help=names)
    aliases = "run the local image for an image URI, which may contain *; repeatable"
    up.add_argument("--image-alias", type=_parse_pair, action="append", metavar="URI=LOCAL", help=aliases)
    frameworks = "run this repository's images in place of AWS's for scikit-learn, TensorFlow and PyTorch"
    up.add_argument(framework_images.OPTION, action="store_true", default=None, help=frameworks)
    guards = "image with Python 3 for the guards of endpoints and isolated jobs; none: no guards"
    up.add_argument("--guard-image", metavar="IMAGE", help=guards)
    idle = f"seconds until the idle container of a serverless variant stops; default: {config.SERVERLESS_IDLE_SECONDS}"
    up.add_argument("--serverless-idle-seconds", type=int, metavar="SECONDS", help=idle)
    speed = "shorten the times of scaling policies by this factor, to test them sooner; default: 1"
    up.add_argument("--autoscaling-speed", type=int, metavar="FACTOR", help=speed)
    instances = f"maximum number of running instances of a variant; default: {config.MAX_INSTANCES}"
    up.add_argument("--max-instances", type=int, metavar="COUNT", help=instances)
    pace = "shorten the waiting times of updates of endpoints by this factor; default: 1"
    up.add_argument("--deployment-speed", type=int, metavar="FACTOR", help=pace)
    services = "forward requests for another AWS service to an emulator; repeatable"
    up.add_argument("--service", type=_parse_pair, action="append", metavar="NAME=URL", help=services)
    functions = "command or FILE.py:FUNCTION that a pipeline's Lambda steps run; repeatable"
    up.add_argument("--function", type=_parse_pair, action="append", metavar="NAME=COMMAND", help=functions)
    proxies = "proxy of jobs: http=URL, https=URL, all=URL, or no=NAMES without a proxy; repeatable"
    up.add_argument("--proxy", type=_parse_pair, action="append", metavar="NAME=URL", help=proxies)
    up.add_argument("--ca-bundle", metavar="FILE", help="certificates that jobs trust, in PEM")
    up.add_argument("--event-target", dest="events", action="append", type=json.loads, help=argparse.SUPPRESS)
    up.add_argument("--tied", action="store_true", help=argparse.SUPPRESS)  # the server stops when no process uses it
    # An address of the console is a secret, so the log of a server in the background must not contain one.
    up.add_argument("--no-console-address", action="store_true", help=argparse.SUPPRESS)
    up.set_defaults(call=_up)
    verbs.add_parser("down", help="stop the server, its jobs and endpoints").set_defaults(call=_down)
    verbs.add_parser("status", help="show whether the server runs, and its address").set_defaults(call=_status)
    env = verbs.add_parser("env", help='print variables for clients: eval "$(microjobs local env)"')
    unset = 'restore the earlier values: eval "$(microjobs local env --unset)"'
    env.add_argument("--unset", action="store_true", help=unset)
    env.add_argument(
        "--mlflow", metavar="NAME", help="add variables for MLflow's own client: a tracking server, or mlflow-app/NAME"
    )
    env.set_defaults(call=_env)
    console = verbs.add_parser("console", help="print an address that opens the web console once")
    console.add_argument("--open", action="store_true", help="open the address in the browser")
    console.set_defaults(call=_console)


def _parse_port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > config.MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a port: use a number from 0 to {config.MAX_PORT}")
    return int(text)


def _parse_pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if not (key and value):
        raise argparse.ArgumentTypeError(f"{text!r} has no key or no value: use KEY=VALUE")
    return key, value


class SafeFormatter(logging.Formatter):
    """Removes control sequences: log records may contain names of files and output of jobs."""

    def format(self, record: logging.LogRecord) -> str:
        return strip_controls(super().format(record))


def _load_config(options: argparse.Namespace) -> config.Config:
    pairs = {
        "images": options.image_alias,
        "services": options.service,
        "proxies": options.proxy,
        "functions": options.function,
    }
    tables = {name: dict(table) for name, table in pairs.items() if table}
    return config.merge_flags(config.load(), **vars(options) | tables, host_names=options.host_name)


def _up(options: argparse.Namespace) -> int:
    from microjobs_orchestrator.local import control

    home, settings = Home.from_environment(), _load_config(options)
    if options.detach:
        if (address := control.await_server(home)) is None:
            address = control.start(home, settings)
        elif ignored := _list_ignored_flags(options, address):
            problem = f"a server runs for {home.root}, at {address.url} with runtime {address.runtime}"
            remedy = f"stop it with `microjobs local down`, or remove {', '.join(ignored)}"
            raise control.ServerError(f"{problem}, and cannot change its settings: {remedy}")
        print(f"{address.url} answers, runtime {address.runtime} ({address.why}); buckets are in {home.buckets}")
        print('For clients: `eval "$(microjobs local env)"`. To stop it: `microjobs local down`')
        _print_console_address(control.make_console_address(home, address))
        return 0
    gc.disable()  # the garbage collector would examine all modules several times during the import
    from microjobs_orchestrator.local.server import serve  # the import takes a second, and only the server needs it

    gc.freeze()
    gc.enable()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(SafeFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    is_quiet = options.no_console_address
    serve(
        home,
        settings,
        stops_when_unused=options.tied,
        announce=(lambda _: None) if is_quiet else _print_console_address,
    )
    return 0


def _print_console_address(url: str) -> None:
    print(f"Console, for one browser within 15 minutes: {url}", flush=True)


def _list_ignored_flags(options: argparse.Namespace, address: "Address") -> list[str]:
    """Return the flags that differ, or could differ, from the settings of a running server."""
    equality_by_option = {
        "port": options.port in (None, 0, urlsplit(address.url).port),
        "runtime": options.runtime in (None, "auto", address.runtime),
        "region": options.region in (None, address.region),
    }
    flags_without_comparison = (
        "ca_bundle",
        "limits",
        "all_addresses",
        "host_name",
        "image_alias",
        "framework_images",
        "guard_image",
        "serverless_idle_seconds",
        "autoscaling_speed",
        "max_instances",
        "deployment_speed",
        "service",
        "function",
        "proxy",
    )
    equality_by_option |= {name: not getattr(options, name) for name in flags_without_comparison}
    return [f"--{name.replace('_', '-')}" for name, is_equal in equality_by_option.items() if not is_equal]


def _down(_: argparse.Namespace) -> int:
    from microjobs_orchestrator.local import control

    home = Home.from_environment()
    print("stopped" if control.stop(home) else f"no server runs for {home.root}")
    return 0


def _status(_: argparse.Namespace) -> int:
    from microjobs_orchestrator.local import control

    home = Home.from_environment()
    if (address := control.find_server(home)) is None:
        print(control.explain_missing_server(home))
        return 1
    settings = f"runtime {address.runtime} ({address.why}), region {address.region}"
    print(f"{address.url} answers, process {address.pid}, {settings}")
    print(f"bucket s3://{address.bucket} is the folder {home.buckets / address.bucket}")
    return 0


def _console(options: argparse.Namespace) -> int:
    import webbrowser

    from microjobs_orchestrator.local import control

    home = Home.from_environment()
    if (address := control.find_server(home)) is None:
        raise control.ServerError(control.explain_missing_server(home))
    url = control.make_console_address(home, address)
    print(url)
    if options.open and not webbrowser.open(url):
        print("no browser was found: open the address in a browser of this machine", file=sys.stderr)
        return 1
    return 0


def _env(options: argparse.Namespace) -> int:
    from microjobs_orchestrator.local import shell

    if options.unset:
        changes = shell.list_restorations(os.environ)
    else:
        from microjobs_orchestrator.local import control

        home = Home.from_environment()
        if (address := control.find_server(home)) is None:
            raise control.ServerError(control.explain_missing_server(home))
        variables = control.make_environment(home, address)
        if options.mlflow is not None:
            variables |= control.make_mlflow_environment(home, address, options.mlflow)
        changes = shell.list_changes(variables, os.environ)
    print("\n".join(shell.format_commands(changes)))
    return 0
