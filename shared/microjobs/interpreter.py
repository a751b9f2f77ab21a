"""Separates our own Python programs from the variables and folders that belong to the user.

A request may set any variable (`PYTHONPATH`, `HOME`, `USER`), and a container may start in any folder and as any user.
Standard library only.
"""

import os
import pwd
import sys
import tempfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from microjobs.errors import UserError

FLAGS = "-IuBXutf8"
"""Isolated (no PYTHON* variables, no working directory, no user packages on `sys.path`), unbuffered, without writing
`__pycache__`, in UTF-8 whatever the locale is. The Dockerfile and `containers/bin` repeat these flags."""

OURS = ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")
"""Variables that the image itself sets for the user's programs."""

EXECUTABLE = ("PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__")
"""Variables that Python takes for its own path in spite of `FLAGS`; it would not find its virtual environment. The
Dockerfile and `containers/bin` remove them, and the runtime `process` does."""

OTHER_INTERPRETERS = ("PYTHONHOME", "PYTHONPLATLIBDIR", *EXECUTABLE)
"""Variables that describe one installation of Python; the interpreter here would not find its library by them."""


PYTHON = "MICROJOBS_PYTHON"
"""Set where jobs run without an engine: the interpreter for the programs in `containers/bin`, which images have at a
fixed path."""


SHARED_MEMORY = "/dev/shm"  # noqa: S108  for `tempfile`, which makes its files safely


def own_program(*arguments: str) -> list[str]:
    """Return the command line of a Python program of ours."""
    return [sys.executable, FLAGS, *arguments]


def user_paths(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the folders of the user's PYTHONPATH, which our own interpreter ignores."""
    return [path for path in environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def take_python_variables(environ: MutableMapping[str, str]) -> dict[str, str]:
    """Remove the user's PYTHON* variables and return those that a program on this interpreter can have."""
    names = [name for name in environ if name.startswith("PYTHON") and name not in OURS]
    taken = {name: environ.pop(name) for name in names}
    return {name: value for name, value in taken.items() if name not in OTHER_INTERPRETERS}


def complete(environ: MutableMapping[str, str]) -> None:
    """Set a home folder and a user name where the container's user has no account, and a folder for temporary files.

    Docker sets HOME to `/` for such a user, and `getpass.getuser` raises an error. Values of the user are kept.

    Raises:
        UserError: no folder can take temporary files.
    """
    _set_temporary_folder(environ)
    if environ.get("HOME", "") in ("", "/"):
        environ["HOME"] = tempfile.gettempdir()
    names = ("LOGNAME", "USER", "LNAME", "USERNAME")  # as `getpass.getuser` reads them
    if not any(environ.get(name) for name in names) and not _has_account():
        environ["USER"] = str(os.getuid())


def prepare_matplotlib(environ: MutableMapping[str, str]) -> None:
    """Set what matplotlib reads when it is imported: the user's variables may name no backend, or no usable folder."""
    environ["MPLBACKEND"] = "agg"
    folder = Path(environ.get("MPLCONFIGDIR", "") or tempfile.gettempdir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK)
    except OSError:
        usable = False
    if not usable:
        environ["MPLCONFIGDIR"] = str(Path(tempfile.gettempdir()) / "matplotlib")


def _set_temporary_folder(environ: MutableMapping[str, str]) -> None:
    """Use shared memory in a read-only container that has no other folder to write to."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        environ["TMPDIR"] = SHARED_MEMORY
        try:
            tempfile.gettempdir()
        except FileNotFoundError:
            raise UserError("no folder can take temporary files: mount one at /tmp (docker run --tmpfs /tmp)") from None


def _has_account() -> bool:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True
