"""Keeps an S3 prefix equal to a folder of running hosts: checkpoints, and outputs with S3UploadMode `Continuous`."""

import filecmp
import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle import outputs
from microjobs_orchestrator.local.runtimes.base import Host
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.trees import Tree, discard

logger = logging.getLogger(__name__)

SECONDS = 5.0
"""Between two looks; longer if a look takes long, so that copying takes a tenth of the time at most."""

SOON_SECONDS = 0.5
"""The same while files change: those that live shortly must be found twice, too."""

NEVER = (-1, 0.0)
"""Size and time of a file that was not looked at yet."""


class Sync:
    """Uploads what changes in a folder of each host, until `finish`.

    A file that is being written is uploaded when two looks found it the same; `finish` uploads all that is there.

    Args:
        deletes: what a host deletes is deleted in the bucket too (checkpoints; facts §2.2).
        there: the files that every host found at its start.
    """

    def __init__(
        self,
        store: ObjectStore,
        hosts: Sequence[Host],
        path: str,
        uri: str,
        folder: Path,
        note: Callable[[str], None],
        *,
        deletes: bool,
        there: Collection[str] = (),
    ) -> None:
        self._store = store
        self._hosts = hosts
        self._path = path
        self._bucket, self._prefix = parse_uri(uri)
        self._folder = folder
        self._note = note
        self._deletes = deletes
        self._seen: dict[str, dict[str, tuple[int, float]]] = {host.name: dict.fromkeys(there, NEVER) for host in hosts}
        self._gone: dict[str, set[str]] = {host.name: set() for host in hosts}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Stop looking, and upload the folders' last state."""
        self._ended.set()
        self._thread.join()
        self._look(final=True)

    def _loop(self) -> None:
        wait = SECONDS
        while not self._ended.wait(wait):
            began, seen = time.monotonic(), dict(self._seen)
            try:
                self._look(final=False)
            except Exception:
                logger.exception("could not sync %s", self._path)
            is_settled = all(before == self._seen[host] for host, before in seen.items())
            wait = max(SECONDS if is_settled else SOON_SECONDS, 10 * (time.monotonic() - began))

    def _look(self, *, final: bool) -> None:
        for host in self._hosts:
            copied = self._folder / host.name
            try:
                tree = host.copy(self._path, copied)
                if tree is not None:
                    self._upload(host.name, tree, final=final)
            finally:
                discard(copied)

    def _upload(self, host: str, tree: Tree, *, final: bool) -> None:
        before, now = self._seen[host], {}
        refused: ServiceError | None = None
        for name, content in outputs.files(tree).items():
            now[name] = (tree[name].size, tree[name].modified)
            if final or before.get(name) == now[name]:
                try:
                    self._upload_file(content, outputs.join(self._prefix, name))
                except ServiceError as error:  # a name that no key can have must not keep the others away
                    refused = error
        if final and refused is not None:
            raise refused
        self._seen[host] = now
        gone = (self._gone[host] | before.keys()) - now.keys()
        if self._deletes and (final or before.items() >= now.items()):  # what came in their place is there by now
            elsewhere = {name for other, names in self._seen.items() if other != host for name in names}
            for name in gone - elsewhere:
                self._store.delete(self._bucket, outputs.join(self._prefix, name))
            gone = set()
        self._gone[host] = gone

    def _upload_file(self, path: Path, key: str) -> None:
        outputs.check_key(self._store, self._bucket, key)
        there = next((item for item in self._store.list(self._bucket, key) if item.key == key), None)
        if there is None or not filecmp.cmp(path, there.path, shallow=False):
            self._store.adopt(self._bucket, key, path)
