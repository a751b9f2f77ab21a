"""Selects the rows of each training step, and the part of these rows that belongs to this process.

The seed and the number of an epoch determine the order of its rows. Therefore, a resumed training job has the same
order, and processes agree on the order without messages. Needs numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class StepRows:
    """The rows of one process in one step: `order[start:end]`, which may be empty.

    total_rows: number of rows of this step in all processes.
    """

    start: int
    end: int
    total_rows: int


@dataclass(frozen=True)
class Batches:
    """The part of each global batch of `rows_per_step` rows that belongs to process `rank`.

    rows: number of training rows in all processes.
    shard_sizes: number of rows per process if each process has its own rows; None if all processes have all rows.
    """

    rows: int
    rows_per_step: int
    seed: int
    rank: int = 0
    world_size: int = 1
    shard_sizes: Sequence[int] | None = None

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.rows // self.rows_per_step)

    def steps(self) -> list[StepRows]:
        """Return the steps of an epoch: the same number in every process, and the same steps in every epoch."""
        count = self.steps_per_epoch
        # the rows of each process are divided evenly among the steps, so that all processes have rows until the last
        # step
        if self.shard_sizes is not None:
            bounds_by_rank = [[rows * step // count for step in range(count + 1)] for rows in self.shard_sizes]
        else:
            sizes = [min(self.rows_per_step, self.rows - step * self.rows_per_step) for step in range(count)]
            bounds_by_rank = [
                _accumulate_sizes([len(range(rank, size, self.world_size)) for size in sizes]) for rank in self._ranks
            ]
        totals = [sum(bounds[step + 1] - bounds[step] for bounds in bounds_by_rank) for step in range(count)]
        bounds = bounds_by_rank[self.rank]
        return [StepRows(bounds[step], bounds[step + 1], totals[step]) for step in range(count)]

    def order(self, epoch: int) -> Indices:
        """Return the indices of this process's rows in the epoch's order. A batch of all rows is not shuffled."""
        if self.shard_sizes is not None:
            return self._shuffle(self.shard_sizes[self.rank], epoch, self.rank)
        order = self._shuffle(self.rows, epoch)
        if self.world_size == 1:
            return order
        full_batch_rows = len(order) // self.rows_per_step * self.rows_per_step
        batches, remaining_rows = order[:full_batch_rows].reshape(-1, self.rows_per_step), order[full_batch_rows:]
        return np.concatenate(
            [batches[:, self.rank :: self.world_size].ravel(), remaining_rows[self.rank :: self.world_size]]
        )

    @property
    def _ranks(self) -> range:
        return range(self.world_size)

    def _shuffle(self, rows: int, epoch: int, *seeds: int) -> Indices:
        if self.rows_per_step >= self.rows:
            return np.arange(rows)
        return np.random.default_rng((epoch, self.seed, *seeds)).permutation(rows)


def _accumulate_sizes(sizes: Sequence[int]) -> list[int]:
    return [0, *np.cumsum(sizes).tolist()]
