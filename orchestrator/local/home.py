"""Home of a server: the folder `.microjobs`, which contains all files of the server."""

import json
import logging
import os
import re
import secrets
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from microjobs.files import atomic_write
from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.local.identity import Credentials

logger = logging.getLogger(__name__)

HOME_VARIABLE = "MICROJOBS_HOME"
REMEDY = f"set {HOME_VARIABLE} to a folder of your own"

WRITE_AND_STICKY_BITS = stat.S_IWOTH | stat.S_ISVTX
"""Two mode bits: all users may write; the sticky bit, as on /tmp, stops users from replacing each other's files."""

HOME_ENTRIES = (
    ".gitignore",
    "credentials.json",
    "environments",
    "images.json",
    "interruptions",  # version 0.1 wrote this file
    "lock",
    "logs",
    "metrics.db",
    "metrics.db.damaged",
    "metrics.db-shm",
    "metrics.db-wal",
    "mlflow",
    "objects",
    "packages",
    "runs",
    "s3",
    "sagemaker-sdk.yaml",
    "server.json",
    "server.key",
    "server.log",
    "state.db",
    "state.db-shm",
    "state.db-wal",
    "users",
    "work",
)
"""Entries that belong to a home. MICROJOBS_HOME may name a folder that also has other files, and `microjobs clean` must
not remove the other files."""


CREDENTIAL_VARIABLES = {
    "MICROJOBS_ACCESS_KEY_ID": "[A-Za-z0-9]{16,128}",
    "MICROJOBS_SECRET_ACCESS_KEY": "[!-~]{32,128}",
}
"""Variables that set the credentials of a home, and the patterns of their values."""


class HomeError(CommandError):
    """The home cannot be created, a file in it is damaged, or other users could read or replace it."""


class Home:
    """Paths below a home."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.buckets = root / "s3"
        """Folder of the buckets: `s3://bucket/key` is the file `bucket/key` in it. Users may change its files."""
        self.logs = root / "logs"
        self.state = root / "state.db"
        self.metrics = root / "metrics.db"
        self.objects = root / "objects"
        """Folder for content types, checksums and multipart uploads, which the files of buckets cannot contain."""
        self.work = root / "work"
        """Folders of running jobs and endpoints, on the file system of the buckets. They are removed when the job or
        the endpoint ends. A starting server removes the folders that an earlier server left."""
        self.environments = root / "environments"
        """Virtual environments of the process runtime and of programs such as MLflow, one per lock file of packages."""
        self.packages = root / "packages"
        """Python packages that hosts have installed."""
        self.mlflow = root / "mlflow"
        """Folders of MLflow servers, with their databases."""
        self.server_file = root / "server.json"
        """Process and address of the server. The file exists while a server runs."""
        self.lock = root / "lock"
        self.users = root / "users"
        """File on which each run holds a shared lock while it uses a server that stops after the last run."""
        self.server_log = root / "server.log"
        self.sdk_config = root / "sagemaker-sdk.yaml"
        """Settings of the SageMaker SDK."""
        self._credentials = root / "credentials.json"
        self._key = root / "server.key"

    @classmethod
    def from_environment(cls) -> "Home":
        """Return the home that MICROJOBS_HOME names, or else the home `.microjobs` in the current folder.

        Raises HomeError if the current folder was removed.
        """
        try:
            return cls(Path(os.environ.get(HOME_VARIABLE) or ".microjobs").expanduser().absolute())
        except FileNotFoundError:
            raise HomeError("the current folder was removed: change to another one") from None

    def create(self) -> None:
        """Create the folder, readable by its owner only and ignored by git.

        Raises HomeError if the folder cannot be created, or if other users keep access to it.
        """
        if not os.path.lexists(self.root):
            try:
                self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise HomeError(f"{self.root} cannot be created ({error.strerror}); {REMEDY}") from error
        self.check()
        self._restrict_to_owner()
        for folder in (self.buckets, self.logs, self.objects, self.work):
            try:
                folder.mkdir(exist_ok=True)
            except FileExistsError as error:
                raise HomeError(f"{folder} is not a folder: move it away, or {REMEDY}") from error
        ignore = self.root / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")

    def check(self) -> None:
        """Raise HomeError if another user owns or can replace the folder, or if it is not a folder.

        Another user's files could direct clients to that user's server.
        """
        resolved = self.root.resolve()
        for path in dict.fromkeys((self.root, *self.root.parents, *resolved.parents)):
            if not os.path.lexists(path):  # a dangling link leads to this path
                continue
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode) and status.st_uid not in (0, os.geteuid()):
                raise HomeError(f"the path {self.root} contains {path}, a link of another user; {REMEDY}")
            if (
                stat.S_ISDIR(status.st_mode)
                and path != self.root
                and status.st_mode & WRITE_AND_STICKY_BITS == stat.S_IWOTH
            ):
                raise HomeError(f"all users can replace files in {path}; change its mode (chmod o-w), or {REMEDY}")
        if not resolved.is_dir():
            raise HomeError(f"{self.root} is not a folder, or is a link to a missing folder; {REMEDY}")
        if (owner := resolved.stat().st_uid) != os.geteuid():
            raise HomeError(f"{self.root} belongs to another user (uid {owner}); {REMEDY}")

    def _restrict_to_owner(self) -> None:
        """Remove other users' rights on the folder and the secrets in it."""
        for path in (self.root, self._credentials, self._key):
            if path.exists():
                self._restrict(path, path.stat())

    def _restrict(self, path: Path, status: os.stat_result) -> None:
        mode = stat.S_IMODE(status.st_mode)
        if status.st_uid != os.geteuid():
            raise HomeError(f"{path} belongs to another user (uid {status.st_uid}); {REMEDY}")
        if not mode & 0o077:
            return
        if path == self.root and not self._may_be_restricted(mode):
            raise HomeError(f"{path} is open to other users (mode {mode:o}) and may contain their files; {REMEDY}")
        path.chmod(mode & 0o700)
        if path.stat().st_mode & 0o077:
            raise HomeError(f"other users can read {path}, and its file system does not store modes; {REMEDY}")
        logger.warning("%s was open to other users (mode %o); now only you can read it", path, mode)

    def _may_be_restricted(self, mode: int) -> bool:
        """Return whether it is safe to remove other users' rights on the folder.

        The folder must not have the sticky bit, which /tmp has. It must contain only files of a server, unless a server
        has used it before.
        """
        was_used = self.state.exists() and self.lock.exists()
        return not mode & stat.S_ISVTX and (was_used or {path.name for path in self.root.iterdir()} <= {*HOME_ENTRIES})

    def server_key(self) -> str:
        """Return the secret with which the server proves that it serves this home. The first call creates it.

        Jobs know the credentials, but not this secret.
        """
        key = _read_secret(self._key, lambda: secrets.token_hex(32))
        if not re.fullmatch("[0-9a-f]{64}", key):
            raise _make_damaged_error(self._key, "it is not a key of 64 digits")
        return key

    def set_credentials(self, environ: Mapping[str, str]) -> None:
        """Store the credentials from CREDENTIAL_VARIABLES, if these are set.

        Clients can then know the credentials before the server starts.

        Raises HomeError if only one of CREDENTIAL_VARIABLES is set, or if a value does not match its pattern.
        """
        values = {name: environ.get(name, "") for name in CREDENTIAL_VARIABLES}
        if not any(values.values()):
            return
        for name, pattern in CREDENTIAL_VARIABLES.items():
            if not re.fullmatch(pattern, values[name]):
                raise HomeError(f"{name} does not match {pattern}: set both {' and '.join(values)} to random texts")
        with atomic_write(self._credentials) as partial:
            partial.touch(mode=0o600)
            partial.write_text(json.dumps(asdict(Credentials(*values.values()))))

    def credentials(self) -> Credentials:
        """Return the home's credentials. The first call creates them."""
        text = _read_secret(self._credentials, _create_credentials)
        try:
            home_credentials = Credentials(**json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            raise _make_damaged_error(self._credentials, error) from error
        if not all(isinstance(text, str) and text for text in asdict(home_credentials).values()):
            raise _make_damaged_error(self._credentials, "a value is empty or not a text")
        return home_credentials


def _create_credentials() -> str:
    return json.dumps(asdict(Credentials(f"AKIA{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30))))


def _make_damaged_error(path: Path, reason: object) -> HomeError:
    remedy = "remove it, run `microjobs local up`, which creates a new one, and then `microjobs local env` for clients"
    return HomeError(f"{path} is damaged ({reason}): {remedy}")


def read_file(path: Path) -> str:
    """Return the text of a file. Raises ValueError if it is not UTF-8.

    Raises OSError if the path is missing, or is not a regular file: reading a pipe would wait forever.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file")
    return path.read_text(encoding="utf-8")


_creation_lock = threading.Lock()
"""This lock is held while a secret is created, because jobs that start at the same time need the same secret."""


def _read_secret(path: Path, create: Callable[[], str]) -> str:
    """Return the text of a file that only its owner can read. The file is created if it does not exist."""
    with _creation_lock:
        if not path.exists():
            with atomic_write(path) as partial:
                partial.touch(mode=0o600)
                partial.write_text(create())
    try:
        return read_file(path)
    except (OSError, ValueError) as error:
        raise _make_damaged_error(path, error) from error
