"""Which rows a step of the training takes, and which of them are this process's.

The order of an epoch follows from the seed and the epoch's number alone: a training that was stopped goes on in the
same order, and several processes agree on it without a word. Needs numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """One step as one process sees it: its rows are `order[first:last]`, maybe none, of `of_all` in all processes."""

    first: int
    last: int
    of_all: int


@dataclass(frozen=True)
class Batches:
    """The part of each global batch of `step_rows` rows that falls to process `rank` of `world`.

    rows: of the training set, those of all processes.
    shards: how many rows each process has, where each has its own; None where all have the same.
    """

    rows: int
    step_rows: int
    seed: int
    rank: int = 0
    world: int = 1
    shards: Sequence[int] | None = None

    def steps(self) -> list[Step]:
        """The steps of an epoch: as many in every process, and the same in every epoch."""
        count = -(-self.rows // self.step_rows)
        if self.shards is not None:  # spread evenly, so that nobody runs out before the others
            ends = [[rows * step // count for step in range(count + 1)] for rows in self.shards]
        else:
            sizes = [min(self.step_rows, self.rows - step * self.step_rows) for step in range(count)]
            ends = [_ends([len(range(rank, size, self.world)) for size in sizes]) for rank in range(self.world)]
        of_all = [sum(end[step + 1] - end[step] for end in ends) for step in range(count)]
        own = ends[self.rank]
        return [Step(own[step], own[step + 1], of_all[step]) for step in range(count)]

    def order(self, epoch: int) -> Indices:
        """This process's rows in the order that the epoch takes them; the full batch needs no shuffling."""
        if self.shards is not None:
            return self._order(self.shards[self.rank], epoch, self.rank)
        order = self._order(self.rows, epoch)
        if self.world == 1:
            return order
        whole = len(order) // self.step_rows * self.step_rows
        batches = order[:whole].reshape(-1, self.step_rows)
        return np.concatenate([batches[:, self.rank :: self.world].ravel(), order[whole:][self.rank :: self.world]])

    def _order(self, rows: int, epoch: int, *more: int) -> Indices:
        if self.step_rows >= self.rows:
            return np.arange(rows)
        return np.random.default_rng((epoch, self.seed, *more)).permutation(rows)


def _ends(sizes: Sequence[int]) -> list[int]:
    return [0, *np.cumsum(sizes).tolist()]
