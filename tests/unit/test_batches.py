"""Batches: every row once an epoch, shared without overlap, in an order that needs no memory."""

import numpy as np
import pytest
from numpy.typing import NDArray

from microjobs.trainer.batches import Batches


def taken(batches: Batches, epoch: int = 0) -> list[NDArray[np.int64]]:
    """This process's rows of each step."""
    order = batches.order(epoch)
    return [order[step.first : step.last] for step in batches.steps()]


def test_epoch_takes_every_row_once() -> None:
    batches = Batches(10, 4, seed=1)
    assert [step.of_all for step in batches.steps()] == [4, 4, 2]
    assert sorted(np.concatenate(taken(batches)).tolist()) == list(range(10))


def test_order_follows_from_seed_and_epoch() -> None:
    orders = [Batches(100, 10, seed).order(epoch).tolist() for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))]
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3


def test_full_batch_is_not_shuffled() -> None:
    assert taken(Batches(5, 5, seed=1))[0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("world", [2, 3, 4, 7])
@pytest.mark.parametrize(("rows", "step_rows"), [(10, 4), (12, 4), (5, 5), (7, 2), (2, 1)])
def test_processes_share_the_batches_of_one(world: int, rows: int, step_rows: int) -> None:
    alone = taken(Batches(rows, step_rows, seed=3), epoch=2)
    shares = [taken(Batches(rows, step_rows, 3, rank, world), epoch=2) for rank in range(world)]
    together = [np.concatenate(parts) for parts in zip(*shares, strict=True)]
    assert [sorted(batch) for batch in together] == [sorted(batch) for batch in alone]


@pytest.mark.parametrize("shards", [[5, 5], [9, 1], [10, 0], [1, 2, 8]])
def test_uneven_shards_take_as_many_steps(shards: list[int]) -> None:
    every = [Batches(sum(shards), 3, 1, rank, len(shards), shards) for rank in range(len(shards))]
    sizes = [[step.last - step.first for step in batches.steps()] for batches in every]
    assert [sum(own) for own in sizes] == shards
    assert [sum(step) for step in zip(*sizes, strict=True)] == [step.of_all for step in every[0].steps()]
    assert max(step.of_all for step in every[0].steps()) <= 3 + len(shards)
    assert all(sorted(batches.order(0)) == list(range(rows)) for batches, rows in zip(every, shards, strict=True))
