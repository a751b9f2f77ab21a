"""Uploads of a folder of running hosts to an S3 prefix: checkpoints, and outputs with S3UploadMode `Continuous`."""

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

POLL_INTERVAL = 5.0
"""Seconds between two copies of the folder: engines do not report changes of files in containers. If copying is slow,
the interval is ten times as long as the copying."""

SHORT_POLL_INTERVAL = 0.5
"""Poll interval while files change. It is short, because a file is uploaded only after two successive equal copies."""

NOT_COPIED = (-1, 0.0)
"""Stands for the size and the time of a file that was not copied yet."""


class Sync:
    """Uploads the changed files of a folder of each host, until `finish`.

    A file is uploaded only after two successive copies of it were equal, because the host may still be writing it.
    `finish` uploads all files.

    Args:
        deletes_removed_files: also delete an object when its file is deleted, as SageMaker does with checkpoints:
            https://docs.aws.amazon.com/sagemaker/latest/dg/model-checkpoints.html
        note: writes a sentence to the log of the job.
        initial_names: the names of the files that each host finds at its start.
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
        deletes_removed_files: bool,
        initial_names: Collection[str] = (),
    ) -> None:
        self._store = store
        self._hosts = hosts
        self._path = path
        self._bucket, self._prefix = parse_uri(uri)
        self._folder = folder
        self._note = note
        self._deletes_removed_files = deletes_removed_files
        self._last_copies: dict[str, dict[str, tuple[int, float]]] = {
            host.name: dict.fromkeys(initial_names, NOT_COPIED) for host in hosts
        }
        """The size and the modification time of each file in the last copy of the folder, by host and by file name."""
        self._names_to_delete: dict[str, set[str]] = {host.name: set() for host in hosts}
        """Names of deleted files whose objects are not deleted yet, by host."""
        self._finish_requested = threading.Event()
        self._thread = threading.Thread(target=self._poll_until_finished, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Stop polling, and upload the last state of the folders."""
        self._finish_requested.set()
        self._thread.join()
        self.poll(is_final=True)

    def finish_or_note(self, description: str) -> None:
        """Finish. An error is only logged and noted, because the outputs and the failure reason of the job matter more.

        Args:
            description: the word for the files in messages, such as `checkpoints`.
        """
        try:
            self.finish()
        except Exception as error:
            logger.exception("could not save the %s in %s", description, self._path)
            self._note(f"the last {description} could not be saved: {error}")

    def _poll_until_finished(self) -> None:
        wait = POLL_INTERVAL
        while not self._finish_requested.wait(wait):
            start, previous_states = time.monotonic(), dict(self._last_copies)
            try:
                self.poll(is_final=False)
            except Exception:
                logger.exception("could not sync %s", self._path)
            is_settled = all(before == self._last_copies[host_name] for host_name, before in previous_states.items())
            wait = max(POLL_INTERVAL if is_settled else SHORT_POLL_INTERVAL, 10 * (time.monotonic() - start))

    def poll(self, *, is_final: bool) -> None:
        """Copy the folder of each host, and upload the changed files.

        Args:
            is_final: whether no later call follows, so that files are uploaded even if they have just changed.
        """
        for host in self._hosts:
            copy_folder = self._folder / host.name
            try:
                tree = host.copy(self._path, copy_folder)
                if tree is not None:
                    self._upload(host.name, tree, is_final=is_final)
            finally:
                discard(copy_folder)

    def _upload(self, host_name: str, tree: Tree, *, is_final: bool) -> None:
        previous, current = self._last_copies[host_name], {}
        key_error: ServiceError | None = None
        for name, path in outputs.list_files(tree).items():
            current[name] = (tree[name].size, tree[name].modification_time)
            if is_final or previous.get(name) == current[name]:
                try:
                    self._upload_file(path, outputs.join_key(self._prefix, name))
                except ServiceError as error:  # other files are uploaded even if the name of this file cannot be a key
                    key_error = error
        if is_final and key_error is not None:
            raise key_error
        self._last_copies[host_name] = current
        names_to_delete = (self._names_to_delete[host_name] | previous.keys()) - current.keys()
        # Delete objects only when all existing files are uploaded: a crash must not leave only parts of checkpoints.
        if self._deletes_removed_files and (is_final or previous.items() >= current.items()):
            names_on_other_hosts = {
                name for other, names in self._last_copies.items() if other != host_name for name in names
            }
            for name in names_to_delete - names_on_other_hosts:
                self._store.delete(self._bucket, outputs.join_key(self._prefix, name))
            names_to_delete = set()
        self._names_to_delete[host_name] = names_to_delete

    def _upload_file(self, path: Path, key: str) -> None:
        outputs.check_key(self._store, self._bucket, key)
        existing = next((item for item in self._store.list(self._bucket, key) if item.key == key), None)
        if existing is None or not filecmp.cmp(path, existing.path, shallow=False):
            self._store.put(self._bucket, key, path)
