"""What both trainers share: channels in, figures out."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from microjobs.contract import Layout
from microjobs.errors import UserError
from microjobs.hyperparameters import TrainerHyperparameters, load
from microjobs.scaler import Scaler, write_scaler
from microjobs.trainer.training import History, Trained, TrainingData, identity, load_data, measure

Write = Callable[..., Layout]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes both channels with the given number of features."""

    def channels(train: int = 2, test: int = 2) -> Layout:
        layout = Layout(tmp_path)
        for split, features in (("train", train), ("test", test)):
            layout.channel(split).mkdir(parents=True)
            np.save(layout.channel(split) / f"x_{split}.npy", np.ones((3, features)))
            np.save(layout.channel(split) / f"y_{split}.npy", np.ones(3))
        return layout

    return channels


def trained(history: History, predictions: list[float]) -> Trained:
    column = np.asarray(predictions, np.float32)[:, np.newaxis]
    return Trained("any", len(history.epochs), 1.0, history, column, column)


def test_channels_are_read_as_columns_of_float32(write: Write) -> None:
    data = load_data(write())
    assert (data.x_train.shape, data.y_test.shape) == ((3, 2), (3, 1))
    assert data.x_train.dtype == data.y_train.dtype == np.float32
    assert data.scaler is None


def test_missing_channel_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="channel 'train' is missing"):
        load_data(Layout(tmp_path))


def test_channels_of_different_width_are_refused(write: Write) -> None:
    with pytest.raises(UserError, match="x_train has 2 values a row, x_test has 3"):
        load_data(write(2, 3))


def test_scaler_of_other_features_is_refused(write: Write) -> None:
    layout = write()
    write_scaler(layout.channel("train"), Scaler([3], [0.0], [1.0]))
    with pytest.raises(UserError, match=r"scaler\.json of channel train has 1 features, x_train has 2"):
        load_data(layout)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_names_the_learning_rate(loss: float) -> None:
    with pytest.raises(UserError, match=f"in epoch 3 the train loss is {loss}.*use a smaller learning_rate"):
        History().add(3, loss, 1.0)


@pytest.mark.parametrize(("loss", "expected"), [("mse", 5.0), ("mae", 2.0), ("l1", 2.0), ("huber", 1.5)])
def test_losses_are_those_of_the_frameworks(loss: str, expected: float) -> None:
    zeros = np.zeros((2, 1), np.float32)
    history = History()
    history.add(0, 1.0, 1.0)
    metrics = measure(loss, TrainingData(zeros, zeros, zeros, zeros, None), trained(history, [1.0, -3.0]))
    assert metrics["test_loss"] == expected
    assert (metrics["test_mse"], metrics["test_mae"], metrics["epochs"]) == (5.0, 2.0, 1)


def test_defaults_are_the_notebooks() -> None:
    defaults = load(TrainerHyperparameters, {})
    assert (defaults.epochs, defaults.batch_size, defaults.learning_rate) == (70, 128, 0.01)


@pytest.mark.parametrize(("batch_size", "expected"), [("0", 404), ("128", 128), ("1000", 404)])
def test_batch_size_0_is_the_full_batch(batch_size: str, expected: int) -> None:
    assert load(TrainerHyperparameters, {"batch_size": batch_size}).rows_a_step(404) == expected


def history_of(*test_losses: float) -> History:
    history = History()
    for epoch, loss in enumerate(test_losses):
        history.add(epoch, 1.0, loss)
    return history


@pytest.mark.parametrize(
    ("losses", "patience", "over"),
    [((3, 2, 2, 2), 2, True), ((3, 2, 2), 2, False), ((3, 2, 1), 1, False), ((1, 2, 3), 0, False), ((), 1, False)],
)
def test_training_is_over_when_the_test_loss_stays(losses: tuple[float, ...], patience: int, over: bool) -> None:
    assert history_of(*losses).is_over(patience) == over


def test_best_epoch_is_the_first_of_the_lowest_loss() -> None:
    assert (history_of(3, 1, 2, 1).best_epoch, History().best_epoch) == (1, None)


def test_identity_is_that_of_values_and_shapes(write: Write) -> None:
    data = load_data(write())
    other = dataclasses.replace(data, y_test=data.y_test + 1)
    known, changed = data.identity(), other.identity()
    assert {name for name in known if known[name] != changed[name]} == {"y_test"}
    assert known["x_train"].startswith("(3, 2) sha256:")


def test_more_epochs_and_another_build_are_the_same_training(write: Write) -> None:
    data = load_data(write())
    first, second = TrainerHyperparameters(epochs=1), TrainerHyperparameters(epochs=2, keep_checkpoints=9)
    assert identity("PyTorch", "2.13.0+cpu", first, data) == identity("PyTorch", "2.13.0+cu130", second, data)
    assert first.identity() != TrainerHyperparameters(seed=1).identity()
