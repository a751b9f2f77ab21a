"""The server's folder, `.microjobs`: everything that a server keeps is in it, and nothing is elsewhere."""

import json
import logging
import os
import re
import secrets
import stat
import string
from dataclasses import asdict, dataclass
from pathlib import Path

from microjobs.files import atomic_write
from microjobs_orchestrator.failures import LauncherError
from microjobs_orchestrator.local.identity import Credentials

logger = logging.getLogger(__name__)

HOME = "MICROJOBS_HOME"
REMEDY = f"set {HOME} to a folder of your own"

OTHERS_WRITE = stat.S_IWOTH | stat.S_ISVTX
"""In a folder that all can write to, such as /tmp, the sticky bit keeps them from replacing what is not theirs."""

ENTRIES = (
    ".gitignore",
    "credentials.json",
    "environments",
    "images.json",
    "interruptions",  # of version 0.1
    "lock",
    "logs",
    "objects",
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
"""All that a home may have. Other entries are not ours: MICROJOBS_HOME may name a folder with anything in it."""


class HomeError(LauncherError):
    """The server's folder cannot be made, or other users could read or replace it."""


@dataclass(frozen=True)
class Home:
    """Paths below the server's folder."""

    root: Path

    @classmethod
    def from_environment(cls) -> "Home":
        """The home of the current folder, or the one that the variable names.

        Raises:
            HomeError: the current folder was removed.
        """
        try:
            return cls(Path(os.environ.get(HOME) or ".microjobs").expanduser().absolute())
        except FileNotFoundError:
            raise HomeError("the current folder was removed: change to another one") from None

    @property
    def buckets(self) -> Path:
        """`s3://bucket/key` is `buckets/bucket/key`: look into it, drop files into it, keep it."""
        return self.root / "s3"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def state(self) -> Path:
        return self.root / "state.db"

    @property
    def objects(self) -> Path:
        """What the buckets' files do not say themselves: content types, checksums, uploads under way."""
        return self.root / "objects"

    @property
    def work(self) -> Path:
        """Folders of running jobs; a job's is removed with it. On the same file system as the buckets."""
        return self.root / "work"

    @property
    def environments(self) -> Path:
        """Virtual environments of the process runtime, one a lock."""
        return self.root / "environments"

    @property
    def server(self) -> Path:
        """Who serves this folder, and where: there while a server runs."""
        return self.root / "server.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def users(self) -> Path:
        """Locked, shared, by each run while it uses a server that ends with the last one."""
        return self.root / "users"

    @property
    def server_log(self) -> Path:
        return self.root / "server.log"

    @property
    def sdk_config(self) -> Path:
        """Settings of the SageMaker SDK."""
        return self.root / "sagemaker-sdk.yaml"

    def make(self) -> None:
        """Make the folder, for its owner alone, and keep it out of any git repository.

        Raises:
            HomeError: it cannot be made, or other users could read or replace it and that cannot be mended.
        """
        if not os.path.lexists(self.root):
            try:
                self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise HomeError(f"{self.root} cannot be made ({error.strerror}); {REMEDY}") from error
        self.check()
        self._close_to_others()
        for folder in (self.buckets, self.logs, self.objects, self.work):
            try:
                folder.mkdir(exist_ok=True)
            except FileExistsError as error:
                raise HomeError(f"{folder} is not a folder: move it away, or {REMEDY}") from error
        ignore = self.root / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")

    def check(self) -> None:
        """Check that nobody else owns or can replace the folder: they could name a server of their own in it.

        Raises:
            HomeError: somebody can.
        """
        resolved = self.root.resolve()
        for path in dict.fromkeys((self.root, *self.root.parents, *resolved.parents)):
            if not os.path.lexists(path):  # behind a link to nowhere
                continue
            found = path.lstat()
            if stat.S_ISLNK(found.st_mode) and found.st_uid not in (0, os.geteuid()):
                raise HomeError(f"{self.root} leads through {path}, a link of another user; {REMEDY}")
            if stat.S_ISDIR(found.st_mode) and path != self.root and found.st_mode & OTHERS_WRITE == stat.S_IWOTH:
                raise HomeError(f"all users can replace what is in {path}; change its mode (chmod o-w), or {REMEDY}")
        if not resolved.is_dir():
            raise HomeError(f"{self.root} is not a folder, or leads to one that does not exist; {REMEDY}")
        if (owner := resolved.stat().st_uid) != os.geteuid():
            raise HomeError(f"{self.root} belongs to another user (uid {owner}); {REMEDY}")

    def _close_to_others(self) -> None:
        """Take the folder, and the secrets in it, from other users."""
        for path in (self.root, self._credentials, self._key):
            found = path.stat() if path.exists() else None
            if found is None:
                continue
            if found.st_uid != os.geteuid():
                raise HomeError(f"{path} belongs to another user (uid {found.st_uid}); {REMEDY}")
            if found.st_mode & 0o077:
                self._close(path, stat.S_IMODE(found.st_mode))

    def _close(self, path: Path, mode: int) -> None:
        if path == self.root and not self._is_ours(mode):
            raise HomeError(f"{path} is open to other users (mode {mode:o}) and holds other files; {REMEDY}")
        path.chmod(mode & 0o700)
        if path.stat().st_mode & 0o077:
            raise HomeError(f"other users can read {path}, and its file system keeps no modes; {REMEDY}")
        logger.warning("%s was open to other users (mode %o): it is yours alone now", path, mode)

    def _is_ours(self, mode: int) -> bool:
        """Whether the folder may be closed: a server has used it or it holds nothing else, and it is no /tmp."""
        is_used = self.state.exists() and self.lock.exists()
        return not mode & stat.S_ISVTX and (is_used or {path.name for path in self.root.iterdir()} <= {*ENTRIES})

    @property
    def _credentials(self) -> Path:
        return self.root / "credentials.json"

    @property
    def _key(self) -> Path:
        return self.root / "server.key"

    def server_key(self) -> str:
        """The secret by which the server proves that it serves this folder, made when it is asked for first.

        Jobs know the credentials, but not this.
        """
        if not self._key.exists():
            _write_secret(self._key, secrets.token_hex(32))
        try:
            key = read_file(self._key)
        except (OSError, ValueError) as error:
            raise _damaged(self._key, error) from error
        if not re.fullmatch("[0-9a-f]{64}", key):
            raise _damaged(self._key, "it is no key of 64 digits")
        return key

    def credentials(self) -> Credentials:
        """The folder's credentials, made when they are asked for first."""
        if not self._credentials.exists():
            key = "AKIA" + "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(16))
            _write_secret(self._credentials, json.dumps(asdict(Credentials(key, secrets.token_urlsafe(30)))))
        try:
            found = Credentials(**json.loads(read_file(self._credentials)))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise _damaged(self._credentials, error) from error
        if not all(isinstance(text, str) and text for text in asdict(found).values()):
            raise _damaged(self._credentials, "it has no text where it needs some")
        return found


def _damaged(path: Path, why: object) -> HomeError:
    remedy = "remove it, and `microjobs local up` makes another one; clients then need `microjobs local env` again"
    return HomeError(f"{path} cannot be used ({why}): {remedy}")


def read_file(path: Path) -> str:
    """The text of a file.

    Raises:
        OSError: there is none, or it is something else: reading a pipe would wait for ever.
        ValueError: it is not in UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file")
    return path.read_text(encoding="utf-8")


def _write_secret(path: Path, text: str) -> None:
    with atomic_write(path) as partial:
        partial.touch(mode=0o600)
        partial.write_text(text)
