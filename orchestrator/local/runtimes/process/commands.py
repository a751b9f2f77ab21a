"""Command lines of hosts: the image's entry point, or the request's entry point with translated paths."""

import re
import shutil
from pathlib import Path, PurePosixPath

from microjobs.contract import DEFAULT_ROOT, Layout
from microjobs.interpreter import BYTECODE_CACHING_FLAGS
from microjobs_orchestrator.local.runtimes.base import CannotRunError, HostPlan
from microjobs_orchestrator.local.runtimes.process.environments import Environment

SHELLS = ("bash", "sh")
"""Shells that are in the images and on every Linux machine, so a host may use the shell of this machine."""
SYSTEM_FOLDERS = ("/bin", "/usr/bin", "/usr/local/bin")

_ROOT_PATTERN = re.compile(rf"(^|=){re.escape(DEFAULT_ROOT)}(?=/|$)")


def make_command_line(host: HostPlan, environment: Environment, layout: Layout) -> list[str]:
    """Return the command line of a host. Raise CannotRunError if the entry point is not available.

    The images' own entry point translates paths itself. For a request's entry point, the arguments are translated, also
    in `--option=path`.
    """
    arguments = list(host.arguments or ())
    if host.entrypoint is None:
        return [str(environment.python), BYTECODE_CACHING_FLAGS, "-m", "microjobs", *arguments]
    program, *entrypoint_arguments = host.entrypoint
    return [
        _find_program(program, environment, layout),
        *(translate_paths(part, layout) for part in [*entrypoint_arguments, *arguments]),
    ]


def translate_paths(text: str, layout: Layout) -> str:
    """Replace the contract's root in a path, or in `--option=path`, by the host's root."""
    return _ROOT_PATTERN.sub(lambda match: f"{match[1]}{layout.root}", text)


def _find_program(name: str, environment: Environment, layout: Layout) -> str:
    path = PurePosixPath(name)
    if path.is_relative_to(DEFAULT_ROOT):
        return str(layout.resolve_local_path(name))
    command_name = path.name if str(path.parent) in SYSTEM_FOLDERS else name
    program = None if "/" in command_name else shutil.which(command_name, path=make_search_path(environment))
    program = program or (shutil.which(command_name) if command_name in SHELLS else None)
    if program is None:
        raise CannotRunError(
            f"entry point {name!r} is not in the environment of {environment.job_folder.name}: without an engine, "
            "only python, sh, bash and the commands of its packages run; start Docker for others"
        )
    return program


def make_search_path(environment: Environment) -> str:
    """Return the PATH of a host.

    A shared environment (`base` is None) comes after the folder `fallback`, whose pip hides the environment's pip:
    otherwise, one host could install packages for all hosts. The environment of a single host comes before `fallback`.
    """
    containers_folder = environment.job_folder.parent
    if environment.base is None:
        return f"{containers_folder / 'bin'}:{containers_folder / 'fallback'}:{environment.bin}"
    return f"{containers_folder / 'bin'}:{environment.bin}:{containers_folder / 'fallback'}:{environment.base / 'bin'}"


def resolve_contract_path(layout: Layout, path: str) -> Path:
    """Return the local path for a path of the contract. Raise CannotRunError for a path outside of its root."""
    local_path = Path(layout.resolve_local_path(path))
    if ".." in PurePosixPath(path).parts or not local_path.is_relative_to(layout.root):
        raise CannotRunError(f"path {path} is not below {DEFAULT_ROOT}, so it needs a container: start Docker")
    return local_path
