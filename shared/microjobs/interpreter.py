"""Separates the project's own Python programs from the variables and folders of the user.

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
"""Options of Python in images: isolated (no PYTHON* variables, no working directory, no user packages on `sys.path`),
unbuffered, no `__pycache__`, UTF-8 for all locales. The Dockerfile and `containers/bin` repeat these flags."""

BYTECODE_CACHING_FLAGS = "-IuXutf8"
"""Options of Python in jobs without a container engine: the packages of an environment are compiled at their first
import, and the bytecode is stored for later jobs. The packages of images are compiled when the image is built."""

IMAGE_VARIABLES = ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")
"""Variables that the image itself sets for the user's programs."""

SYS_EXECUTABLE_VARIABLES = ("PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__")
"""Variables that replace `sys.executable` even with `FLAGS`, so that Python would not find its virtual environment. The
Dockerfile, `containers/bin` and the runtime `process` remove them."""

INSTALLATION_VARIABLES = ("PYTHONHOME", "PYTHONPLATLIBDIR", *SYS_EXECUTABLE_VARIABLES)
"""Variables that describe one installation of Python. With them, another interpreter does not find its library."""

PYTHON_VARIABLE = "MICROJOBS_PYTHON"
"""Variable with the path of the interpreter for the programs in `containers/bin`, for jobs without a container engine.
In an image, the path is fixed."""

SHARED_MEMORY = "/dev/shm"  # noqa: S108  `tempfile` creates files in it safely


def make_python_command(*arguments: str) -> list[str]:
    """Return the command line of one of the project's Python programs, with the options of this process."""
    return [sys.executable, FLAGS if sys.dont_write_bytecode else BYTECODE_CACHING_FLAGS, *arguments]


def read_user_paths(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the folders of the user's PYTHONPATH, which the project's own programs ignore."""
    return [path for path in environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def take_python_variables(environ: MutableMapping[str, str]) -> dict[str, str]:
    """Remove the user's PYTHON* variables from `environ`. Return them without those that describe an installation."""
    names = [name for name in environ if name.startswith("PYTHON") and name not in IMAGE_VARIABLES]
    variables = {name: environ.pop(name) for name in names}
    return {name: value for name, value in variables.items() if name not in INSTALLATION_VARIABLES}


def set_default_folders_and_user(environ: MutableMapping[str, str]) -> None:
    """Set a folder for temporary files, and a home folder and a user name for a UID that /etc/passwd does not contain.

    Docker sets HOME to `/` for such a UID, and `getpass.getuser` raises an error. Values of the user have priority.

    Raises:
        UserError: no folder is writable.
    """
    _set_temporary_folder(environ)
    if environ.get("HOME", "") in ("", "/"):
        environ["HOME"] = tempfile.gettempdir()
    names = ("LOGNAME", "USER", "LNAME", "USERNAME")  # `getpass.getuser` reads these variables
    if not any(environ.get(name) for name in names) and not _has_passwd_entry():
        environ["USER"] = str(os.getuid())


def prepare_matplotlib(environ: MutableMapping[str, str]) -> None:
    """Set the variables that matplotlib's import reads: the user's values may be unusable."""
    environ["MPLBACKEND"] = "agg"
    folder = Path(environ.get("MPLCONFIGDIR", "") or tempfile.gettempdir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_usable = os.access(folder, os.W_OK)
    except OSError:
        is_usable = False
    if not is_usable:
        environ["MPLCONFIGDIR"] = str(Path(tempfile.gettempdir()) / "matplotlib")


def _set_temporary_folder(environ: MutableMapping[str, str]) -> None:
    """If no other folder is writable, as in a read-only container, use shared memory."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        environ["TMPDIR"] = SHARED_MEMORY
        try:
            tempfile.gettempdir()
        except FileNotFoundError:
            raise UserError(
                "no folder is writable for temporary files: mount one at /tmp (docker run --tmpfs /tmp)"
            ) from None


def _has_passwd_entry() -> bool:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True
