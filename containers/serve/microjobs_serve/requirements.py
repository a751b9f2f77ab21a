"""Installs `code/requirements.txt` into a virtual environment on top of the image's packages.

The environment is kept in the temporary folder, so that workers share it and a restarted container finds it again.
Packages of the image stay visible, and a requirement of another version hides the image's, as on AWS. The server has
imported numpy and others by then, so it starts again with the environment's interpreter.
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
import venv
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from microjobs.errors import UserError
from microjobs.interpreter import FLAGS
from microjobs.run import STOPPING

logger = logging.getLogger("microjobs")

FILE = "requirements.txt"
OURS = ("granian",)
"""Packages whose version the server depends on."""
COMPLETE = "complete"
"""A file in each environment whose installation succeeded."""
TAIL_LINES = 200
"""Lines of pip's output that are searched for the reason of a failure."""
REASON_LINES = 3
FROM_INDEX = re.compile(r"\s*(#|$|(?!\S*\.(whl|zip|gz)\b)[A-Za-z0-9._-]+(\[[^]]*\])?\s*([<>=!~;#\\]|$))")
"""How a line begins that names a package of an index, or nothing: neither a path nor an option."""
UNREACHABLE = ("from versions: none", "Retrying (", "Connection", "resolution", "No route")
"""Parts of pip's output when it reaches no index."""
OFFLINE = (
    ". If endpoints have no network (EnableNetworkIsolation, a VPC), put the packages into the image, or their wheels "
    f"into code/ with the line --no-index --find-links . in {FILE}"
)


class RestartNeededError(Exception):
    """The server must start again, with another interpreter."""

    def __init__(self, python: Path) -> None:
        super().__init__(f"start again with {python}")
        self._python = python

    def restart(self) -> None:
        """Replace this process; the new one unblocks the signals when it can handle them."""
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        os.execv(  # noqa: S606 - no shell has a part in it
            self._python, [str(self._python), FLAGS, "-m", "microjobs.run", "serve"]
        )


def require(code: Path) -> None:
    """See to it that this process has what a code folder requires.

    Raises:
        UserError: the requirements cannot be installed; the reason names them.
        RestartNeededError: they are installed in another environment.
    """
    if not (code / FILE).is_file():
        return
    digest = _digest(code)
    if Path(sys.prefix).name == digest:
        return
    folder = _cache() / digest
    with _locked(folder.with_suffix(".lock")):
        if not (folder / COMPLETE).exists():
            _make(folder)
            _install(folder, code)
            (folder / COMPLETE).write_text(_image_prefix())
    raise RestartNeededError(folder / "bin" / "python")


def _cache() -> Path:
    """This user's folder for environments, or a new one where somebody else could write into that."""
    folder = Path(tempfile.gettempdir()) / f"microjobs-requirements-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return folder
    logger.warning("%s is not this user's alone: requirements are installed without it", folder)
    return Path(tempfile.mkdtemp(prefix="microjobs-requirements-"))


def _digest(code: Path) -> str:
    """A name for what would be installed: requirements that name files depend on these too."""
    text = (code / FILE).read_bytes()
    parts = [_image_prefix().encode(), sys.version.encode(), text]
    if not all(FROM_INDEX.match(line) for line in text.decode(errors="replace").splitlines()):
        for path in sorted(path for path in code.rglob("*") if path.is_file()):
            parts += [str(path.relative_to(code)).encode(), path.read_bytes()]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def _image_prefix() -> str:
    """The image's own environment, also in a process that runs in one on top of it."""
    marker = Path(sys.prefix) / COMPLETE
    return marker.read_text() if marker.is_file() else sys.prefix


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Several servers of one machine may start at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(folder: Path) -> None:
    """Make an environment that sees this one's packages behind its own."""
    shutil.rmtree(folder, ignore_errors=True)
    venv.EnvBuilder(symlinks=True).create(folder)
    lines = (f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages())
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (packages / "image.pth").write_text("".join(lines))
    pins = (f"{name}=={importlib.metadata.version(name)}\n" for name in OURS)
    (folder / "constraints.txt").write_text("".join(pins))


def _install(folder: Path, code: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise UserError(f"code/{FILE} needs pip, which this image does not have: put the packages into the image")
    if os.environ.get("CA_REPOSITORY_ARN"):
        raise UserError("CA_REPOSITORY_ARN is not supported: set PIP_INDEX_URL to the address of the repository")
    logger.info("installing code/%s", FILE)
    options = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--retries", "2"]
    options += ["--root-user-action", "ignore", "--no-warn-script-location"]
    files = ["--constraint", str(folder / "constraints.txt"), "--requirement", FILE]
    exit_code, said = _run([str(folder / "bin" / "python"), "-I", "-m", "pip", "install", *options, *files], code)
    if exit_code:
        hint = OFFLINE if any(part in line for part in UNREACHABLE for line in said) else ""
        raise UserError(f"code/{FILE} cannot be installed: {_reason(said)}{hint}")


def _run(command: Sequence[str], folder: Path) -> tuple[int, Sequence[str]]:
    """The exit code and the last lines of a program whose output goes to the log."""
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            sys.stderr.write(line)
            tail.append(line.rstrip())
    return process.returncode, tail


def _reason(said: Sequence[str]) -> str:
    """pip's own errors, the last of which name the requirement."""
    errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
    return "; ".join(errors[-REASON_LINES:]) or (said[-1] if said else "pip failed without a message")
