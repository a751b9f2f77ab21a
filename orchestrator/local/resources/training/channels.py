"""The channels of a training job, and each host's share of them.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/model-access-training-data.html
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from microjobs import contract
from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle import inputs, manifests
from microjobs_orchestrator.local.lifecycle.inputs import AUGMENTED
from microjobs_orchestrator.local.lifecycle.job import LAYOUT
from microjobs_orchestrator.local.lifecycle.manifests import Record
from microjobs_orchestrator.local.resources.training.pipes import Stream, shuffled
from microjobs_orchestrator.local.runtimes.base import Input, Pipe
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.s3.store import ObjectStore

FILE, FAST_FILE, PIPE = "File", "FastFile", "Pipe"


class Channel:
    """One channel of a request.

    Args:
        item: of InputDataConfig.
        mode: TrainingInputMode, for a channel that does not say.
    """

    def __init__(self, item: Mapping[str, Any], mode: str) -> None:
        self.name: str = item["ChannelName"]
        self.mode: str = item.get("InputMode", mode)
        self._source: Mapping[str, Any] = item["DataSource"]["S3DataSource"]
        self._distribution: str = self._source.get("S3DataDistributionType", "FullyReplicated")
        self._content_type: str | None = item.get("ContentType")
        self._gzip = item.get("CompressionType", "None") == "Gzip"
        self._wrapper: str = item.get("RecordWrapperType", "None")
        self._seed: int | None = item.get("ShuffleConfig", {}).get("Seed")

    @property
    def _is_augmented(self) -> bool:
        return bool(self._source["S3DataType"] == AUGMENTED)

    def check(self, store: ObjectStore) -> None:
        """Raises ValidationError if the channel's members do not go together, or there is no data."""
        if (reason := next(self._contradictions(), None)) is not None:
            raise self._wrong(reason)
        inputs.check_source(store, self._source, "input data source")
        if self.mode == FAST_FILE and self._source["S3DataType"] == inputs.PREFIX:
            self._check_folder(store)

    def _contradictions(self) -> Iterator[str]:
        if self.name in (".", ".."):  # the model's pattern has room for them
            yield "ChannelName must be the name of a folder of its own"
        if self._is_augmented and self.mode != PIPE:
            yield "AugmentedManifestFile can only be used if the Channel's input mode is Pipe"
        if self._is_augmented and not self._source.get("AttributeNames"):
            yield "AttributeNames must be given for the S3DataType AugmentedManifestFile"
        if self._is_augmented and self._gzip:
            yield "CompressionType Gzip cannot be used with the S3DataType AugmentedManifestFile"
        if not self._is_augmented and self._source.get("AttributeNames"):
            yield "AttributeNames can only be used with the S3DataType AugmentedManifestFile"
        if self.mode != PIPE and (self._gzip or self._wrapper != "None"):
            yield "CompressionType and RecordWrapperType can only be used if the input mode is Pipe"

    def _check_folder(self, store: ObjectStore) -> None:
        bucket, prefix = parse_uri(self._source["S3Uri"])
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        outside = next((item.key for item in store.list(bucket, prefix) if not item.key.startswith(folder)), None)
        if outside is not None:
            raise self._wrong(f"with FastFile the S3Uri must be a whole folder, but {outside} begins with it too")

    def _wrong(self, what: str) -> ValidationError:
        return ValidationError(f"Invalid channel {self.name!r}: {what}")

    def described(self) -> contract.Channel:
        """As inputdataconfig.json has it; FastFile looks like File to a job."""
        mode = PIPE if self.mode == PIPE else FILE
        return contract.Channel(mode, self._distribution, self._wrapper, self._content_type)

    def find(self, store: ObjectStore) -> Sequence[tuple[str, Record]]:
        """What all hosts together get, each with its path below the channel's folder.

        Raises:
            CannotRunError: a manifest is none, or names what is not there.
        """
        if self._is_augmented:
            names: Sequence[str] = self._source["AttributeNames"]
            return [("", record) for record in manifests.records(store, self._source["S3Uri"], names)]
        return [(path, (item,)) for path, item in inputs.find(store, self._source, "input")]

    def pipe(self, found: Sequence[tuple[str, Record]], hosts: int, index: int) -> Pipe:
        """What a host gets in Pipe mode."""
        part = functools.partial(inputs.share, distribution=self._distribution, hosts=hosts, index=index)
        stream = Stream([record for _, record in found], part, self._gzip, self._wrapper == "RecordIO", self._seed)
        return Pipe(str(LAYOUT.channel(self.name)), stream.epoch)

    def folder(self, found: Sequence[tuple[str, Record]], hosts: int, index: int, folder: Path) -> Input:
        """What a host gets in the other modes, linked into a folder."""
        part = inputs.share(shuffled(found, self._seed, 0), self._distribution, hosts, index)
        linked = inputs.link([(path, item) for path, (item,) in part if not isinstance(item, bytes)], folder)
        return Input(str(LAYOUT.channel(self.name)), linked, read_only=self.mode == FAST_FILE)


def check_channels(request: Mapping[str, Any], store: ObjectStore) -> None:
    """Raises ValidationError if two channels have one name, or a channel is wrong (`Channel.check`)."""
    found = channels(request)
    inputs.check_unique("ChannelNames", [channel.name for channel in found])
    for channel in found:
        channel.check(store)


def channels(request: Mapping[str, Any]) -> list[Channel]:
    """The channels of a training job's request, or of a tuning job's definition of training jobs."""
    mode = request["AlgorithmSpecification"]["TrainingInputMode"]
    return [Channel(item, mode) for item in request.get("InputDataConfig", [])]
