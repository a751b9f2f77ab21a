"""Installs `code/requirements.txt` into a virtual environment that extends the image's packages.

The environment is in the temporary folder, so that workers share it and a restarted container finds it again. Packages
of the image stay visible, and a requirement hides the image's package of another version, as on AWS. The server
restarts with the environment's interpreter, because it has already imported some packages, such as numpy.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import re
import shutil
import signal
import site
import stat
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from microjobs import layered_environment
from microjobs.errors import UserError
from microjobs.interpreter import FLAGS
from microjobs.run import STOP_SIGNALS

logger = logging.getLogger("microjobs")

REQUIREMENTS_FILE = "requirements.txt"
PINNED_PACKAGES = ("granian",)
"""Packages of the image that a requirement must not replace: the server depends on their version."""
COMPLETE_MARKER = "complete"
"""File in each environment whose installation succeeded. It contains the path of the image's own environment."""
TAIL_LINES = 200
"""Number of lines at the end of pip's output that are searched for the reason of a failure."""
MAX_ERRORS = 3
"""Maximum number of pip's errors in the reason of a failure."""
INDEX_REQUIREMENT_PATTERN = re.compile(r"\s*(#|$|(?!\S*\.(whl|zip|gz)\b)[A-Za-z0-9._-]+(\[[^]]*\])?\s*([<>=!~;#\\]|$))")
"""Matches an empty line, a comment, or the beginning of a line that names a package of an index."""
UNREACHABLE_MARKERS = ("from versions: none", "Retrying (", "Connection", "resolution", "No route")
"""Parts of pip's output when it cannot reach an index."""
OFFLINE_HINT = (
    ". If endpoints have no network (EnableNetworkIsolation, a VPC), put the packages into the image, or their wheels "
    f"into code/ with the line --no-index --find-links . in {REQUIREMENTS_FILE}"
)


class RestartNeededError(Exception):
    """The server must restart with another interpreter."""

    def __init__(self, python: Path) -> None:
        super().__init__(f"restart with {python}")
        self._python = python

    def restart(self) -> None:
        """Replace this program by `serve` with the other interpreter.

        The new program starts with STOP_SIGNALS blocked, and unblocks them as soon as it can handle them.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        os.execv(  # noqa: S606 - runs without a shell on purpose
            self._python, [str(self._python), FLAGS, "-m", "microjobs.run", "serve"]
        )


def ensure_installed(code: Path) -> None:
    """Check that this process has the requirements of a code folder, and install them if it does not.

    Raises:
        UserError: the requirements cannot be installed; the message names the requirement.
        RestartNeededError: the requirements are installed in another environment.
    """
    if not (code / REQUIREMENTS_FILE).is_file():
        return
    name = make_environment_name(code)
    if Path(sys.prefix).name == name:
        return
    folder = make_cache_folder() / name
    with _hold_lock(folder.with_suffix(".lock")):
        if not (folder / COMPLETE_MARKER).exists():
            _make_environment(folder)
            _install(folder, code)
            (folder / COMPLETE_MARKER).write_text(_find_image_prefix())
    raise RestartNeededError(folder / "bin" / "python")


def make_cache_folder() -> Path:
    """Return this user's folder for environments. If other users have access to it, return a new folder instead."""
    folder = Path(tempfile.gettempdir()) / f"microjobs-requirements-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077:
        return folder
    logger.warning("other users have access to %s: requirements are installed in a new folder", folder)
    return Path(tempfile.mkdtemp(prefix="microjobs-requirements-"))


def make_environment_name(code: Path) -> str:
    """Return a name that depends on the image, the version of Python and the requirements. If a requirement is not a
    package of an index, the name also depends on all files of the folder."""
    text = (code / REQUIREMENTS_FILE).read_bytes()
    parts = [_find_image_prefix().encode(), sys.version.encode(), text]
    if not all(INDEX_REQUIREMENT_PATTERN.match(line) for line in text.decode(errors="replace").splitlines()):
        for path in sorted(path for path in code.rglob("*") if path.is_file()):
            parts += [str(path.relative_to(code)).encode(), path.read_bytes()]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def _find_image_prefix() -> str:
    """Return the path of the image's own environment, even if this process runs in an environment on top of it."""
    marker = Path(sys.prefix) / COMPLETE_MARKER
    return marker.read_text() if marker.is_file() else sys.prefix


@contextlib.contextmanager
def _hold_lock(path: Path) -> Iterator[None]:
    """Hold a lock, because several servers of one machine can start at the same time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_environment(folder: Path) -> None:
    """Make a virtual environment that finds its own packages first, then the packages of this process's environment."""
    shutil.rmtree(folder, ignore_errors=True)
    layered_environment.create(folder, site.getsitepackages())
    pins = (f"{name}=={importlib.metadata.version(name)}\n" for name in PINNED_PACKAGES)
    (folder / "constraints.txt").write_text("".join(pins))


def _install(folder: Path, code: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            f"code/{REQUIREMENTS_FILE} needs pip, which is not in this image: put the packages into the image"
        )
    if os.environ.get("CA_REPOSITORY_ARN"):
        raise UserError("CA_REPOSITORY_ARN is not supported: set PIP_INDEX_URL to the address of the repository")
    logger.info("installing code/%s", REQUIREMENTS_FILE)
    options = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--retries", "2"]
    options += ["--root-user-action", "ignore", "--no-warn-script-location"]
    files = ["--constraint", str(folder / "constraints.txt"), "--requirement", REQUIREMENTS_FILE]
    exit_code, output = _run([str(folder / "bin" / "python"), "-I", "-m", "pip", "install", *options, *files], code)
    if exit_code:
        hint = OFFLINE_HINT if any(part in line for part in UNREACHABLE_MARKERS for line in output) else ""
        raise UserError(f"code/{REQUIREMENTS_FILE} cannot be installed: {_extract_reason(output)}{hint}")


def _run(command: Sequence[str], folder: Path) -> tuple[int, Sequence[str]]:
    """Run a program whose output goes to the log. Return its exit code and its last lines of output."""
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            sys.stderr.write(line)
            tail.append(line.rstrip())
    return process.returncode, tail


def _extract_reason(output: Sequence[str]) -> str:
    """Return pip's last errors, which name the requirement."""
    errors = [line.removeprefix("ERROR: ") for line in output if line.startswith("ERROR: ")]
    return "; ".join(errors[-MAX_ERRORS:]) or (output[-1] if output else "pip failed without a message")
