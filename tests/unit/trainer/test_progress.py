"""Losses and position of a training job."""

import pytest

from microjobs.errors import UserError
from microjobs.trainer.progress import History, TrainingProgress


def make_history(*test_losses: float) -> History:
    history = History()
    for epoch, loss in enumerate(test_losses):
        history.add(epoch, 1.0, loss)
    return history


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
@pytest.mark.parametrize("split", ["train", "test"])
def test_loss_that_is_not_finite_raises(loss: float, split: str) -> None:
    losses = {"train": 1.0, "test": 1.0, split: loss}
    with pytest.raises(UserError, match=f"in epoch 3 .*{split} loss (is )?{loss}.*use a smaller learning_rate"):
        History().add(3, **losses)


@pytest.mark.parametrize(
    ("losses", "patience", "expected"),
    [((3, 2, 2, 2), 2, True), ((3, 2, 2), 2, False), ((3, 2, 1), 1, False), ((1, 2, 3), 0, False), ((), 1, False)],
)
def test_training_stops_when_the_test_loss_plateaus(losses: tuple[float, ...], patience: int, expected: bool) -> None:
    assert make_history(*losses).has_plateaued(patience) == expected


def test_best_epoch_is_the_first_with_the_lowest_loss() -> None:
    assert (make_history(3, 1, 2, 1).best_epoch, History().best_epoch) == (1, None)


def test_progress_is_the_same_after_a_checkpoint() -> None:
    progress = TrainingProgress(epoch=2, step=3, loss=0.5, rows=24, seconds=1.5, history=make_history(3, 1))
    assert TrainingProgress.from_json(progress.to_json()) == progress
    assert progress.count_epochs(96) == 2.25
