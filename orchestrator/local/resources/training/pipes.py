"""The content of the named pipes of a channel in Pipe mode, epoch by epoch.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/model-access-training-data.html and botocore's model
"""

import gzip
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from microjobs_orchestrator.local import recordio
from microjobs_orchestrator.local.lifecycle.manifests import Record

CHUNK = 1 << 20

Item = TypeVar("Item")


@dataclass(frozen=True)
class Stream:
    """One host's part of a channel."""

    records: Sequence[Record]
    """In the order of the keys, or of the manifest's lines; each goes to one host as a whole."""
    part: Callable[[Sequence[Record]], Sequence[Record]]
    """This host's of them."""
    gzip: bool = False
    record_io: bool = False
    seed: int | None = None
    """Shuffles the records of all hosts, differently in each epoch; None: they keep their order."""

    def epoch(self, number: int) -> Iterator[bytes]:
        """All that the pipe of an epoch gives, in pieces of any size.

        Raises:
            OSError: an object is gone.
            ValueError: an object is not compressed, or too large for a record.
        """
        for record in self.part(shuffled(self.records, self.seed, number)):
            for piece in record:
                content = [piece] if isinstance(piece, bytes) else self._content(piece.path)
                if not self.record_io:
                    yield from content
                elif isinstance(piece, bytes):
                    yield from recordio.wrap(len(piece), content)
                else:
                    yield from recordio.wrap(self._size(piece.path), content)

    def _content(self, path: Path) -> Iterator[bytes]:
        return _unpacked(path) if self.gzip else _chunks(path)

    def _size(self, path: Path) -> int:
        # Of what is compressed, only reading it tells.
        return sum(map(len, self._content(path))) if self.gzip else path.stat().st_size


def shuffled(items: Sequence[Item], seed: int | None, epoch: int) -> Sequence[Item]:
    """The items in the order of an epoch."""
    if seed is None:
        return items
    order = list(items)
    random.Random(f"{seed} {epoch}").shuffle(order)  # noqa: S311  it is to be repeatable, not secret
    return order


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _unpacked(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path.name} is no gzip file, as CompressionType says: {error}") from error
