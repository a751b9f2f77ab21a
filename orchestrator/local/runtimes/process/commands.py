"""What a host runs: the image's own entry point, or a request's, with its paths where they are here."""

import re
import shutil
from pathlib import Path, PurePosixPath

from microjobs.contract import DEFAULT_ROOT, Layout
from microjobs.interpreter import FLAGS
from microjobs_orchestrator.local.runtimes.base import CannotRunError, HostPlan
from microjobs_orchestrator.local.runtimes.process.environments import Environment

SHELLS = ("bash", "sh")
"""The commands of the image's Debian that a machine has as well."""
SYSTEM_FOLDERS = ("/bin", "/usr/bin", "/usr/local/bin")

_ROOT = re.compile(rf"(^|=){re.escape(DEFAULT_ROOT)}(?=/|$)")


def command(host: HostPlan, environment: Environment, layout: Layout) -> list[str]:
    """The command line of a host.

    Our own entry point gets its arguments as they are: it looks paths up itself. Those of a request's are moved, also
    in `--option=path`.

    Raises:
        CannotRunError: the entry point is not to be had here.
    """
    arguments = list(host.arguments or ())
    if host.entrypoint is None:
        return [str(environment.python), FLAGS, "-m", "microjobs", *arguments]
    program, *rest = host.entrypoint
    return [_program(program, environment, layout), *(moved(part, layout) for part in [*rest, *arguments])]


def moved(text: str, layout: Layout) -> str:
    """A text that is, or ends in, a path below the contract's root, with that path below the host's own."""
    return _ROOT.sub(lambda match: f"{match[1]}{layout.root}", text)


def _program(name: str, environment: Environment, layout: Layout) -> str:
    path = PurePosixPath(name)
    if path.is_relative_to(DEFAULT_ROOT):
        return str(layout.local(name))
    bare = path.name if str(path.parent) in SYSTEM_FOLDERS else name
    found = None if "/" in bare else shutil.which(bare, path=search_path(environment))
    if found is None and bare in SHELLS:
        found = shutil.which(bare)
    if found is None:
        raise CannotRunError(
            f"entry point {name!r} is not in the environment of {environment.job.name}: without an engine python, "
            "sh, bash and the commands of its packages can be run; start Docker for others"
        )
    return found


def search_path(environment: Environment) -> str:
    """Return where an image has its commands: `train` and `serve`, a substitute for pip, and those of its packages.

    The substitute hides every pip: one would install a user's requirements for all jobs of this environment.
    """
    folders = environment.job.parent
    return f"{folders / 'bin'}:{folders / 'fallback'}:{environment.bin}"


def inside(layout: Layout, path: str) -> Path:
    """Where a path of the contract is.

    Raises:
        CannotRunError: it is not below the contract's root, so it would be this machine's own.
    """
    local = Path(layout.local(path))
    if ".." in PurePosixPath(path).parts or not local.is_relative_to(layout.root):
        raise CannotRunError(f"path {path} is not below {DEFAULT_ROOT}: only a container can have it; start Docker")
    return local
