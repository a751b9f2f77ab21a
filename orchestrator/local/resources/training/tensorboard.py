"""TensorBoard's event files of a training job, uploaded while its hosts run.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_TensorBoardOutputConfig.html
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle import outputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.job import LAYOUT, JobHandle
from microjobs_orchestrator.local.lifecycle.sync import Sync
from microjobs_orchestrator.local.runtimes.base import Host
from microjobs_orchestrator.local.s3.keys import parse_uri

OUTPUT_NAME = "tensorboard-output"
"""The last part of the prefix, after the name of the job: the SDK v2 expects this name."""


def check_config(context: Context, config: Mapping[str, Any]) -> None:
    """Raise ServiceError if a TensorBoardOutputConfig has a bucket that does not exist, or a LocalPath outside of the
    contract's root."""
    bucket, prefix = parse_uri(config["S3OutputPath"])
    context.store.check_writable(bucket, outputs.join_key(prefix, OUTPUT_NAME))
    path = config.get("LocalPath", str(LAYOUT.tensorboard))
    if ".." in PurePosixPath(path).parts or not PurePosixPath(path).is_relative_to(LAYOUT.root):
        raise ValidationError(
            f"TensorBoardOutputConfig LocalPath {path!r} must be {LAYOUT.root} or a folder below it, without '..'."
        )


class TensorBoard:
    """Uploads the event files of a job. If the job has no TensorBoardOutputConfig, all methods do nothing."""

    def __init__(self, job: JobHandle) -> None:
        self._job = job
        config = job.request.get("TensorBoardOutputConfig", {})
        self.folder: str | None = config.get("LocalPath", str(LAYOUT.tensorboard)) if config else None
        """The folder in which the hosts write event files."""
        self._uri = outputs.join_key(config["S3OutputPath"], f"{job.name}/{OUTPUT_NAME}") if config else ""
        self._sync: Sync | None = None

    def start(self, hosts: Sequence[Host]) -> None:
        """Start to upload event files."""
        if self.folder is not None:
            store, copy_folder = self._job.context.store, self._job.folder / "tensorboard"
            self._sync = Sync(
                store, hosts, self.folder, self._uri, copy_folder, self._job.note, deletes_removed_files=False
            )
            self._sync.start()

    def finish(self) -> None:
        """Upload all files once more, and end the uploads. An error is only logged."""
        sync, self._sync = self._sync, None
        if sync is not None:
            sync.finish_or_note("TensorBoard files")
