"""The checkpoints of a training job, which are downloaded to its hosts, and uploaded while the hosts run."""

from collections.abc import Sequence
from pathlib import Path

from microjobs_orchestrator.local.lifecycle import inputs, outputs
from microjobs_orchestrator.local.lifecycle.job import LAYOUT, JobHandle
from microjobs_orchestrator.local.lifecycle.sync import Sync
from microjobs_orchestrator.local.runtimes.base import Host, Input
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.s3.reader import StoredObject


class Checkpoints:
    """The checkpoint folder of a job's hosts. Without a CheckpointConfig in the job's request, all methods do
    nothing."""

    def __init__(self, job: JobHandle) -> None:
        self._job = job
        config = job.request.get("CheckpointConfig", {})
        self._uri: str = config.get("S3Uri", "")
        self.folder: str | None = config.get("LocalPath", str(LAYOUT.checkpoints)) if config else None
        """The folder in which the hosts read and write checkpoints."""
        self._sync: Sync | None = None

    def _list_checkpoints(self) -> list[tuple[str, StoredObject]]:
        """Return the checkpoints in the bucket with their paths. An earlier job may have written them."""
        bucket, prefix = parse_uri(self._uri)
        objects = self._job.context.store.list(bucket, outputs.join_key(prefix, ""))
        return [(item.key[len(prefix) :].lstrip("/"), item) for item in objects if not item.key.endswith("/")]

    def make_inputs(self, folder: Path) -> list[Input]:
        """Return one host's input with the checkpoints of the bucket, linked into a new folder."""
        return (
            [] if self.folder is None else [Input(self.folder, inputs.link_objects(self._list_checkpoints(), folder))]
        )

    def start(self, hosts: Sequence[Host]) -> None:
        """Start to upload checkpoints."""
        if self.folder is not None:
            initial_names, folder = [name for name, _ in self._list_checkpoints()], self._job.folder / "sync"
            store, note = self._job.context.store, self._job.note
            self._sync = Sync(
                store,
                hosts,
                self.folder,
                self._uri,
                folder,
                note,
                deletes_removed_files=True,
                initial_names=initial_names,
            )
            self._sync.start()

    def finish(self) -> None:
        """Upload all checkpoints once more, and end the uploads. An error is only logged."""
        sync, self._sync = self._sync, None
        if sync is not None:
            sync.finish_or_note("checkpoints")
