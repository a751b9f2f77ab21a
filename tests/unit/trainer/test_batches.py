"""Batches: each epoch uses every row once, processes share no rows, and the seed and the epoch determine the order."""

import numpy as np
import pytest
from numpy.typing import NDArray

from microjobs.trainer.batches import Batches


def list_rows_of_steps(batches: Batches, epoch: int = 0) -> list[NDArray[np.int64]]:
    order = batches.order(epoch)
    return [order[step.start : step.end] for step in batches.steps()]


def test_epoch_takes_every_row_once() -> None:
    batches = Batches(rows=10, rows_per_step=4, seed=1)
    assert [step.total_rows for step in batches.steps()] == [4, 4, 2]
    assert sorted(np.concatenate(list_rows_of_steps(batches)).tolist()) == list(range(10))


def test_order_follows_from_seed_and_epoch() -> None:
    orders = [
        Batches(rows=100, rows_per_step=10, seed=seed).order(epoch).tolist()
        for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))
    ]
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3


def test_full_batch_is_not_shuffled() -> None:
    assert list_rows_of_steps(Batches(rows=5, rows_per_step=5, seed=1))[0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("world_size", [2, 3, 4, 7])
@pytest.mark.parametrize(("rows", "rows_per_step"), [(10, 4), (12, 4), (5, 5), (7, 2), (2, 1)])
def test_processes_together_take_the_batches_of_one_process(world_size: int, rows: int, rows_per_step: int) -> None:
    expected = list_rows_of_steps(Batches(rows, rows_per_step, seed=3), epoch=2)
    batches_by_rank = [
        Batches(rows, rows_per_step, seed=3, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    parts_by_step = zip(*(list_rows_of_steps(batches, epoch=2) for batches in batches_by_rank), strict=True)
    steps = [np.concatenate(parts) for parts in parts_by_step]
    assert [sorted(step) for step in steps] == [sorted(batch) for batch in expected]


@pytest.mark.parametrize("shard_sizes", [[5, 5], [9, 1], [10, 0], [1, 2, 8]])
def test_uneven_shards_have_the_same_number_of_steps(shard_sizes: list[int]) -> None:
    count, total = len(shard_sizes), sum(shard_sizes)
    batches_by_rank = [
        Batches(total, rows_per_step=3, seed=1, rank=rank, world_size=count, shard_sizes=shard_sizes)
        for rank in range(count)
    ]
    step_sizes_by_rank = [[step.end - step.start for step in batches.steps()] for batches in batches_by_rank]
    assert [sum(step_sizes) for step_sizes in step_sizes_by_rank] == shard_sizes
    assert [sum(sizes) for sizes in zip(*step_sizes_by_rank, strict=True)] == [
        step.total_rows for step in batches_by_rank[0].steps()
    ]
    assert max(step.total_rows for step in batches_by_rank[0].steps()) <= 3 + count
    for batches, rows in zip(batches_by_rank, shard_sizes, strict=True):
        assert sorted(batches.order(0)) == list(range(rows))
