"""Which rows are whose: processes are threads here, and the frameworks' own groups are tried in the images."""

import dataclasses
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from microjobs.arrays import load_share, save_array
from microjobs.contract import (
    Channel,
    Layout,
    ResourceConfig,
    write_input_data_config,
    write_training_resource_config,
)
from microjobs.errors import UserError
from microjobs.hyperparameters import TrainerHyperparameters
from microjobs.scaler import Scaler
from microjobs.trainer.shares import Shares
from microjobs.trainer.training import Array, TrainingData, load_data

T = TypeVar("T")


@dataclass
class Table:
    """What the threads of one test put down for each other."""

    world: int
    values: dict[int, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.world, timeout=5)


@dataclass
class Seat:
    """A group as one thread sees it."""

    table: Table
    rank: int
    local_rank: int = 0
    local_world: int = 1

    @property
    def world(self) -> int:
        return self.table.world

    def gather(self, array: NDArray[Any]) -> list[NDArray[Any]]:
        self.table.values[self.rank] = array
        self.table.barrier.wait()
        found = [self.table.values[rank] for rank in range(self.world)]
        self.table.barrier.wait()
        return found


def everywhere(work: Callable[[Seat], T], world: int, **seat: int) -> list[T]:
    """What the work gives in each process."""
    table, results = Table(world), dict[int, T]()

    def run(rank: int) -> None:
        results[rank] = work(Seat(table, rank, local_rank=rank if seat else 0, **seat))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[rank] for rank in range(world)]


def rows(numbers: Iterable[float], features: int = 2) -> tuple[Array, Array]:
    y = np.array(list(numbers), np.float32)[:, np.newaxis]
    return (np.repeat(y, features, axis=1), y) if len(y) else (np.empty((0, 0), np.float32), y.reshape(0, 1))


def data(train: Iterable[float], test: Iterable[float] = range(4), *shares: str, features: int = 2) -> TrainingData:
    return TrainingData(*rows(train, features), *rows(test, features), None, frozenset(shares))


def taken(shares: Shares, epoch: int) -> list[list[float]]:
    """The targets that each step of the epoch takes."""
    batches = shares.batches(TrainerHyperparameters(batch_size=4))
    order = batches.order(epoch)
    return [[*shares.data.y_train[order[step.first : step.last], 0].tolist()] for step in batches.steps()]


@pytest.mark.parametrize("world", [2, 3])
def test_replicated_rows_are_dealt_out_as_one_process_takes_them(world: int) -> None:
    (alone,) = everywhere(lambda seat: taken(Shares(data(range(10)), seat), 1), 1)
    together = everywhere(lambda seat: taken(Shares(data(range(10)), seat), 1), world)
    for step, expected in enumerate(alone):
        assert sorted(row for process in together for row in process[step]) == sorted(expected)


def test_replicated_test_rows_are_tried_once() -> None:
    tried = everywhere(lambda seat: Shares(data([0]), seat).test[1][:, 0].tolist(), 3)
    assert sorted(row for process in tried for row in process) == [0, 1, 2, 3]


FILES = [[0, 1, 2, 3, 4, 5, 6], [7, 8], []]
"""Uneven shares of nine rows on three hosts, the last of which has nothing."""


def test_uneven_shares_are_all_taken_every_epoch() -> None:
    together = everywhere(lambda seat: taken(Shares(data(FILES[seat.rank], range(4), "train"), seat), 0), 3)
    assert {len(process) for process in together} == {3}  # nine rows, four a step
    assert sorted(row for process in together for step in process for row in step) == list(range(9))


def test_shares_know_all_rows_and_their_mean() -> None:
    def know(seat: Seat) -> tuple[int, float, int]:
        shares = Shares(data(FILES[seat.rank], range(4), "train"), seat)
        return shares.rows, shares.mean_target, shares.data.features

    assert everywhere(know, 3) == [(9, 4.0, 2)] * 3


def test_processes_of_a_host_share_its_files_out() -> None:
    def own(seat: Seat) -> list[float]:
        shares = Shares(data(range(5), range(4), "train"), seat)
        assert shares.rows == 5
        return [float(row) for row in shares.data.y_train[:, 0]]

    assert everywhere(own, 2, local_world=2) == [[0, 2, 4], [1, 3]]


def test_scaler_of_one_host_is_everybodys() -> None:
    scaler = Scaler([9, 9], [0.0, 1.0], [1.0, 2.0])

    def know(seat: Seat) -> Scaler | None:
        own = data(FILES[seat.rank], range(4), "train")
        return Shares(dataclasses.replace(own, scaler=scaler if seat.rank == 1 else None), seat).data.scaler

    assert everywhere(know, 3) == [scaler] * 3


def test_predictions_come_together_with_their_targets() -> None:
    tests = [[1, 2, 3], [], [4]]

    def predict(seat: Seat) -> list[list[float]]:
        shares = Shares(data(FILES[seat.rank], tests[seat.rank], "train", "test", features=1), seat)
        whole, on_train, on_test = shares.together(shares.data.y_train * 10, shares.data.y_test * 10)
        arrays = (whole.x_train, whole.y_train, on_train, whole.x_test, whole.y_test, on_test)
        return [array[:, 0].tolist() for array in arrays]

    nine, four = [float(row) for row in range(9)], [1.0, 2.0, 3.0, 4.0]
    expected = [nine, nine, [row * 10 for row in nine], four, four, [row * 10 for row in four]]
    assert everywhere(predict, 3) == [expected] * 3


def test_identity_is_of_all_hosts_shares() -> None:
    def identity(files: list[list[int]]) -> list[dict[str, str]]:
        return everywhere(lambda seat: Shares(data(files[seat.rank], range(4), "train"), seat).identity(), 3)

    first, *others = identity(FILES)
    assert others == [first, first]
    changed = identity([FILES[0], [7, 9], FILES[2]])[0]
    assert {name for name in first if first[name] != changed[name]} == {"x_train", "y_train"}


def test_rows_of_other_width_on_another_host_are_refused() -> None:
    def refuse(seat: Seat) -> str:
        with pytest.raises(UserError) as refused:
            Shares(data([1, 2], range(4), "train", features=2 + seat.rank), seat)
        return str(refused.value)

    assert everywhere(refuse, 2) == ["hosts have rows of 2 and 3 values: all must have as many"] * 2


def test_rows_that_no_host_has_are_missed() -> None:
    def refuse(seat: Seat) -> str:
        with pytest.raises(UserError) as refused:
            Shares(data([], range(4), "train"), seat)
        return str(refused.value)

    assert everywhere(refuse, 2) == ["no host has rows of x_train: give the channel 'train' files with some"] * 2


def write(layout: Layout, distribution: str, *hosts: str) -> None:
    write_training_resource_config(layout, ResourceConfig(hosts[0], hosts))
    write_input_data_config(layout, {"train": Channel(distribution=distribution), "test": Channel()})
    for kind in "xy":
        save_array(layout.channel("train") / f"{kind}_train-00001-of-00002.npy", np.ones((3, 1)))
        save_array(layout.channel("test") / f"{kind}_test.npy", np.ones((2, 1)))


def test_some_shards_are_enough_where_they_are_dealt_out(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write(layout, "ShardedByS3Key", "algo-1", "algo-2")
    loaded = load_data(layout)
    assert loaded.shares == {"train"}
    assert len(loaded.x_train) == 3


@pytest.mark.parametrize(
    ("distribution", "hosts"), [("FullyReplicated", ("algo-1", "algo-2")), ("ShardedByS3Key", ("algo-1",))]
)
def test_all_shards_must_be_there_elsewhere(distribution: str, hosts: tuple[str, ...], tmp_path: Path) -> None:
    write(Layout(tmp_path), distribution, *hosts)
    with pytest.raises(UserError, match=r"x_train-00000-of-00002.npy is missing"):
        load_data(Layout(tmp_path))


def test_host_without_files_takes_part(tmp_path: Path) -> None:
    x, y = load_share(tmp_path / "nowhere", "train")
    assert (x.shape, y.shape) == ((0, 0), (0, 1))


def test_shards_that_are_torn_apart_are_refused(tmp_path: Path) -> None:
    save_array(tmp_path / "x_train-00000-of-00003.npy", np.ones((3, 1)))
    save_array(tmp_path / "y_train-00001-of-00003.npy", np.ones(3))
    with pytest.raises(
        UserError, match=r"x_train-00000-of-00003.npy is on this host and y_train-00000-of-00003.npy is"
    ):
        load_share(tmp_path, "train")
