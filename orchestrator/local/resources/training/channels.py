"""The channels of a training job, and each host's share of their data.

Sources: https://docs.aws.amazon.com/sagemaker/latest/dg/model-access-training-data.html and botocore's model
"""

import functools
import gzip
import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from microjobs import contract
from microjobs_orchestrator.local import recordio
from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle import inputs
from microjobs_orchestrator.local.lifecycle.inputs import AUGMENTED, DataRecord
from microjobs_orchestrator.local.lifecycle.job import LAYOUT
from microjobs_orchestrator.local.runtimes.base import Input, Pipe
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.s3.store import ObjectStore

FILE_MODE, FAST_FILE_MODE, PIPE_MODE = "File", "FastFile", "Pipe"

CHUNK_BYTES = 1 << 20

Item = TypeVar("Item")


class Channel:
    """One channel of a request.

    Args:
        item: an item of InputDataConfig.
        default_mode: TrainingInputMode, which applies if the item has no InputMode.
    """

    def __init__(self, item: Mapping[str, Any], default_mode: str) -> None:
        self.name: str = item["ChannelName"]
        self.mode: str = item.get("InputMode", default_mode)
        self._source: Mapping[str, Any] = item["DataSource"]["S3DataSource"]
        self._distribution: str = self._source.get("S3DataDistributionType", "FullyReplicated")
        self._content_type: str | None = item.get("ContentType")
        self._is_gzip = item.get("CompressionType", "None") == "Gzip"
        self._wrapper: str = item.get("RecordWrapperType", "None")
        self._seed: int | None = item.get("ShuffleConfig", {}).get("Seed")
        self._is_augmented: bool = self._source["S3DataType"] == AUGMENTED

    def check(self, store: ObjectStore) -> None:
        """Raise ValidationError if members of the channel contradict each other, or if the channel has no data."""
        if (reason := next(self._find_contradictions(), None)) is not None:
            raise self._make_error(reason)
        inputs.check_source(store, self._source, "input data source")
        if self.mode == FAST_FILE_MODE and self._source["S3DataType"] == inputs.PREFIX:
            self._check_folder(store)

    def _find_contradictions(self) -> Iterator[str]:
        if self.name in (".", ".."):  # botocore's model allows these names, which are not names of folders
            yield "ChannelName must be the name of a folder"
        if self._is_augmented and self.mode != PIPE_MODE:
            yield "AugmentedManifestFile can only be used if the Channel's input mode is Pipe"
        if self._is_augmented and not self._source.get("AttributeNames"):
            yield "AttributeNames is required for the S3DataType AugmentedManifestFile"
        if self._is_augmented and self._is_gzip:
            yield "CompressionType Gzip cannot be used with the S3DataType AugmentedManifestFile"
        if not self._is_augmented and self._source.get("AttributeNames"):
            yield "AttributeNames can only be used with the S3DataType AugmentedManifestFile"
        if self.mode != PIPE_MODE and (self._is_gzip or self._wrapper != "None"):
            yield "CompressionType and RecordWrapperType can only be used if the input mode is Pipe"

    def _check_folder(self, store: ObjectStore) -> None:
        bucket, prefix = parse_uri(self._source["S3Uri"])
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        outside_key = next((item.key for item in store.list(bucket, prefix) if not item.key.startswith(folder)), None)
        if outside_key is not None:
            raise self._make_error(
                f"with FastFile, S3Uri must be a whole folder, but the key {outside_key} also begins with it"
            )

    def _make_error(self, reason: str) -> ValidationError:
        return ValidationError(f"Invalid channel {self.name!r}: {reason}")

    def to_contract(self) -> contract.Channel:
        """Return the channel's entry of inputdataconfig.json. FastFile looks like File to a job."""
        mode = PIPE_MODE if self.mode == PIPE_MODE else FILE_MODE
        return contract.Channel(mode, self._distribution, self._wrapper, self._content_type)

    def find_records(self, store: ObjectStore) -> Sequence[tuple[str, DataRecord]]:
        """Return the records of all hosts: pairs of a path below the channel's folder and a record.

        Each object is a record. For an augmented manifest, each line is a record, and the paths are empty.

        Raises:
            CannotRunError: a manifest is malformed, or names an object that does not exist.
        """
        if self._is_augmented:
            names: Sequence[str] = self._source["AttributeNames"]
            return [("", record) for record in inputs.read_records(store, self._source["S3Uri"], names)]
        return [(path, (item,)) for path, item in inputs.find_objects(store, self._source, "input")]

    def make_pipe(self, records: Sequence[tuple[str, DataRecord]], host_count: int, host_index: int) -> Pipe:
        """Return one host's share of the records in Pipe mode."""
        return Pipe(
            str(LAYOUT.channel(self.name)), functools.partial(self._read_epoch, records, host_count, host_index)
        )

    def make_input(
        self, records: Sequence[tuple[str, DataRecord]], host_count: int, host_index: int, folder: Path
    ) -> Input:
        """Return one host's share of the records in the modes File and FastFile, linked into a new folder."""
        share = self._select_share(records, host_count, host_index)
        # Only augmented manifests contain bytes, and they require Pipe mode.
        linked_data = inputs.link_objects(
            [(path, item) for path, (item,) in share if not isinstance(item, bytes)], folder
        )
        return Input(str(LAYOUT.channel(self.name)), linked_data, read_only=self.mode == FAST_FILE_MODE)

    def _select_share(self, items: Sequence[Item], host_count: int, host_index: int, epoch: int = 0) -> Sequence[Item]:
        """Return one host's share of the items, which ShuffleConfig shuffles differently in each epoch."""
        items = list(items)
        if self._seed is not None:
            random.Random(f"{self._seed} {epoch}").shuffle(items)  # noqa: S311  repeatable, not secret
        return inputs.select_share(items, self._distribution, host_count, host_index)

    def _read_epoch(
        self, records: Sequence[tuple[str, DataRecord]], host_count: int, host_index: int, epoch: int
    ) -> Iterator[bytes]:
        """Yield the content of the pipe of one epoch.

        Raises:
            OSError: an object was deleted.
            ValueError: an object is not compressed as CompressionType requires, or is too large for a RecordIO record.
        """
        for _, record in self._select_share(records, host_count, host_index, epoch):
            for item in record:
                content = [item] if isinstance(item, bytes) else self._read(item.path)
                if self._wrapper == "RecordIO":
                    size = len(item) if isinstance(item, bytes) else self._count_bytes(item.path)
                    content = recordio.wrap(size, content)
                yield from content

    def _read(self, path: Path) -> Iterator[bytes]:
        try:
            with gzip.open(path) if self._is_gzip else path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{path.name} is not a gzip file, as CompressionType requires: {error}") from error

    def _count_bytes(self, path: Path) -> int:
        return sum(map(len, self._read(path))) if self._is_gzip else path.stat().st_size


def check_channels(request: Mapping[str, Any], store: ObjectStore) -> None:
    """Raise ValidationError if two channels have the same name, or a channel is invalid."""
    channels = read_channels(request)
    inputs.check_unique("ChannelNames", [channel.name for channel in channels])
    for channel in channels:
        channel.check(store)


def read_channels(request: Mapping[str, Any]) -> list[Channel]:
    """Return the channels of a training job's request, or of a tuning job's definition of training jobs."""
    default_mode = request["AlgorithmSpecification"]["TrainingInputMode"]
    return [Channel(item, default_mode) for item in request.get("InputDataConfig", [])]
