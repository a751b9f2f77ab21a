"""Division of the training data among processes, which are threads in these tests."""

import dataclasses
from collections.abc import Iterable

import numpy as np
import pytest

from microjobs.columns import CategoricalColumn, FittedColumns
from microjobs.errors import UserError
from microjobs.scaler import Scaler
from microjobs.trainer.data import Array, TrainingData
from microjobs.trainer.hyperparameters import TrainerHyperparameters
from microjobs.trainer.process_data import ProcessData
from tests.unit.trainer.processes import ThreadGroup, run_processes


def make_rows(targets: Iterable[float], features: int = 2) -> tuple[Array, Array]:
    y = np.array(list(targets), np.float32)[:, np.newaxis]
    return (np.repeat(y, features, axis=1), y) if len(y) else (np.empty((0, 0), np.float32), y.reshape(0, 1))


def make_data(
    train_targets: Iterable[float], test_targets: Iterable[float] = range(4), *sharded_splits: str, features: int = 2
) -> TrainingData:
    return TrainingData(
        *make_rows(train_targets, features), *make_rows(test_targets, features), None, frozenset(sharded_splits)
    )


def list_targets_of_steps(data: ProcessData, epoch: int) -> list[list[float]]:
    batches = data.make_batches(TrainerHyperparameters(batch_size=4))
    order = batches.order(epoch)
    return [[*data.local_data.y_train[order[step.start : step.end], 0].tolist()] for step in batches.steps()]


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_divide_replicated_rows_like_one_process(world_size: int) -> None:
    def work(group: ThreadGroup) -> list[list[float]]:
        return list_targets_of_steps(ProcessData(make_data(range(10)), group), 1)

    (expected_steps,), processes = run_processes(work, 1), run_processes(work, world_size)
    for step, expected in enumerate(expected_steps):
        assert sorted(row for process in processes for row in process[step]) == sorted(expected)


def test_replicated_test_rows_belong_to_one_process() -> None:
    test_rows = run_processes(lambda group: ProcessData(make_data([0]), group).test_rows[1][:, 0].tolist(), 3)
    assert sorted(row for process in test_rows for row in process) == [0, 1, 2, 3]


TARGETS_BY_HOST = [[0, 1, 2, 3, 4, 5, 6], [7, 8], []]
"""Targets of nine rows in the files of three hosts. One of the hosts has no rows."""


def test_each_epoch_takes_all_rows_of_uneven_shards() -> None:
    def work(group: ThreadGroup) -> list[list[float]]:
        return list_targets_of_steps(ProcessData(make_data(TARGETS_BY_HOST[group.rank], range(4), "train"), group), 0)

    processes = run_processes(work, 3)
    assert {len(process) for process in processes} == {3}  # an epoch has nine rows, and a step has four rows
    assert sorted(row for process in processes for step in process for row in step) == list(range(9))


def test_all_processes_have_row_count_and_mean_target() -> None:
    def work(group: ThreadGroup) -> tuple[int, float, int]:
        process = ProcessData(make_data(TARGETS_BY_HOST[group.rank], range(4), "train"), group)
        return process.rows, process.mean_target, process.local_data.features

    assert run_processes(work, 3) == [(9, 4.0, 2)] * 3


def test_processes_of_one_host_divide_its_rows() -> None:
    def work(group: ThreadGroup) -> list[float]:
        process = ProcessData(make_data(range(5), range(4), "train"), group)
        assert process.rows == 5
        return [float(row) for row in process.local_data.y_train[:, 0]]

    assert run_processes(work, 2, local_world_size=2) == [[0, 2, 4], [1, 3]]


def test_all_processes_get_the_scaler_columns_and_pipeline_of_one_host() -> None:
    scaler = Scaler(count=[9, 9], mean=[0.0, 1.0], scale=[1.0, 2.0])
    columns = FittedColumns((CategoricalColumn("a", "one-hot", ("x", "y")),), ignored=("id",))

    def work(group: ThreadGroup) -> tuple[Scaler | None, FittedColumns | None, bytes | None]:
        data = make_data(TARGETS_BY_HOST[group.rank], range(4), "train")
        if group.rank == 1:
            data = dataclasses.replace(data, scaler=scaler, columns=columns, pipeline=b"onnx")
        process = ProcessData(data, group)
        gathered_data, _, _ = process.gather_results(process.local_data.y_train, process.local_data.y_test)
        return gathered_data.scaler, gathered_data.columns, gathered_data.pipeline

    assert run_processes(work, 3) == [(scaler, columns, b"onnx")] * 3


def test_predictions_are_gathered_with_their_targets() -> None:
    test_targets_by_host = [[1, 2, 3], [], [4]]

    def predict(group: ThreadGroup) -> list[list[float]]:
        process = ProcessData(
            make_data(TARGETS_BY_HOST[group.rank], test_targets_by_host[group.rank], "train", "test", features=1), group
        )
        gathered_data, train_predictions, test_predictions = process.gather_results(
            process.local_data.y_train * 10, process.local_data.y_test * 10
        )
        arrays = (
            gathered_data.x_train,
            gathered_data.y_train,
            train_predictions,
            gathered_data.x_test,
            gathered_data.y_test,
            test_predictions,
        )
        return [array[:, 0].tolist() for array in arrays]

    train_targets, test_targets = [float(row) for row in range(9)], [1.0, 2.0, 3.0, 4.0]
    expected = [
        train_targets,
        train_targets,
        [row * 10 for row in train_targets],
        test_targets,
        test_targets,
        [row * 10 for row in test_targets],
    ]
    assert run_processes(predict, 3) == [expected] * 3


def test_fingerprint_covers_the_rows_of_all_hosts() -> None:
    def fingerprint(targets_by_host: list[list[int]]) -> list[dict[str, str]]:
        def work(group: ThreadGroup) -> dict[str, str]:
            return ProcessData(make_data(targets_by_host[group.rank], range(4), "train"), group).fingerprint()

        return run_processes(work, 3)

    first, *others = fingerprint(TARGETS_BY_HOST)
    assert others == [first, first]
    changed = fingerprint([TARGETS_BY_HOST[0], [7, 9], TARGETS_BY_HOST[2]])[0]
    assert {name for name in first if first[name] != changed[name]} == {"x_train", "y_train"}


def test_different_widths_across_hosts_raise() -> None:
    def work(group: ThreadGroup) -> str:
        with pytest.raises(UserError) as raised:
            ProcessData(make_data([1, 2], range(4), "train", features=2 + group.rank), group)
        return str(raised.value)

    expected = "x arrays have the widths [2, 3] on different hosts: preprocess all hosts' data in one job"
    assert run_processes(work, 2) == [expected] * 2


def test_split_that_is_empty_on_every_host_raises() -> None:
    def work(group: ThreadGroup) -> str:
        with pytest.raises(UserError) as raised:
            ProcessData(make_data([], range(4), "train"), group)
        return str(raised.value)

    assert run_processes(work, 2) == ["x_train is empty on every host; add data to channel 'train'"] * 2
