"""The training job with a framework in NumPy; tests/images runs it with the real frameworks."""

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microjobs.bundle import read_bundle
from microjobs.contract import Layout, write_checkpoint_config
from microjobs.errors import Stopped, UserError
from microjobs.stopping import StopRequest
from microjobs.trainer.checkpoints import MANIFEST
from microjobs.trainer.data import TrainingData
from microjobs.trainer.hyperparameters import TrainerHyperparameters
from microjobs.trainer.job import TrainingProcess, train
from microjobs.trainer.process_data import ProcessData
from tests.unit.trainer.linear_framework import LinearFramework
from tests.unit.trainer.processes import SharedArrays, ThreadGroup, run_processes

SETTINGS = TrainerHyperparameters(epochs=6, batch_size=4, learning_rate=0.05)


def make_data(*sharded_splits: str) -> TrainingData:
    """Return 10 training rows and 4 test rows of a linear target."""
    x = np.random.default_rng(0).normal(size=(14, 2)).astype(np.float32)
    y = x.sum(axis=1, keepdims=True) + 5
    return TrainingData(x[:10], y[:10], x[10:], y[10:], None, frozenset(sharded_splits))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    write_checkpoint_config(layout, layout.to_contract_path(layout.checkpoints))
    return layout


def run(layout: Layout, framework: LinearFramework, data: TrainingData | None = None) -> None:
    process_data = ProcessData(data or make_data(), framework.group)
    TrainingProcess(layout, framework.hyperparameters, framework, process_data, StopRequest()).run()


def read_trained_weights(framework: LinearFramework) -> list[float]:
    weights: list[float] = framework.training.weights.tolist()
    return weights


def test_job_writes_bundle_metrics_and_plots(layout: Layout) -> None:
    framework = LinearFramework(SETTINGS)
    run(layout, framework)
    manifest = read_bundle(layout.model).manifest
    assert (manifest.framework, manifest.features, manifest.hyperparameters["epochs"]) == ("linear", 2, 6)
    assert json.loads((layout.output_data / "metrics.json").read_text()) == manifest.metrics
    assert (manifest.metrics["epochs"], "best_epoch" in manifest.metrics) == (6, False)
    plots = {path.name for path in layout.output_data.glob("*.png")}
    assert plots == {"learning-curve.png", "predicted-versus-target.png"}


def test_single_feature_model_has_a_plot_of_its_line(layout: Layout) -> None:
    data = make_data()
    run(layout, LinearFramework(SETTINGS), replace(data, x_train=data.x_train[:, :1], x_test=data.x_test[:, :1]))
    assert (layout.output_data / "predictions.png").read_bytes().startswith(b"\x89PNG")


def test_each_epoch_is_tested_and_logged_with_mean_losses(layout: Layout) -> None:
    framework = LinearFramework(SETTINGS)
    run(layout, framework)
    epochs, train_losses, test_losses = zip(*framework.training.logged_epochs, strict=True)
    assert epochs == (0, 1, 2, 3, 4, 5)
    assert train_losses == tuple(sorted(train_losses, reverse=True))
    assert test_losses[-1] == pytest.approx(read_bundle(layout.model).manifest.metrics["test_mse"], rel=1e-5)
    assert framework.training.steps == 18  # each epoch has three steps


@dataclass(frozen=True)
class HyperparametersWithRareTests(TrainerHyperparameters):
    """Hyperparameters with which the model is tested every four epochs."""

    @property
    def test_interval(self) -> int:
        return 4


def test_model_is_tested_at_the_interval_and_after_the_last_epoch(layout: Layout) -> None:
    framework = LinearFramework(HyperparametersWithRareTests(epochs=7))
    run(layout, framework)
    assert [epoch for epoch, *_ in framework.training.logged_epochs] == [0, 4, 6]


def stop_and_resume(layout: Layout, settings: TrainerHyperparameters, *step_counts: int) -> LinearFramework:
    """Run the training once for each item of `step_counts`, and stop each run after this number of steps. Then finish
    the training with another build of the same version of the framework."""
    for stop_after_steps in step_counts:
        run(layout, LinearFramework(settings, stop_after_steps=stop_after_steps))
    framework = LinearFramework(settings, version="1.0+cu130")
    run(layout, framework)
    return framework


def test_resumed_training_ends_with_the_same_weights(layout: Layout, tmp_path: Path) -> None:
    settings = replace(SETTINGS, best_weights=True)
    uninterrupted = LinearFramework(settings)
    run(Layout(tmp_path / "uninterrupted"), uninterrupted)
    resumed = stop_and_resume(layout, settings, 4, 3)
    assert read_trained_weights(resumed) == read_trained_weights(uninterrupted)
    metrics = read_bundle(layout.model).manifest.metrics
    assert (metrics["epochs"], metrics["best_epoch"]) == (6, 5)


def test_stopped_job_saves_the_model_and_its_position(layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run(layout, LinearFramework(SETTINGS, stop_after_steps=7))
    assert read_bundle(layout.model).manifest.metrics["epochs"] == 2.4
    assert "stopped by SIGTERM after 2.4 of 6 epochs; the model is saved; checkpoint in" in caplog.text
    newest = max(layout.checkpoints.iterdir())
    state = json.loads((newest / MANIFEST).read_text())["state"]
    assert (state["epoch"], state["step"], state["rows"], state["history"]["epochs"]) == (2, 1, 4, [0, 1])
    caplog.clear()
    run(layout, LinearFramework(SETTINGS))
    assert f"resuming after 2.4 of 6 epochs, from {layout.checkpoints}\n" in caplog.text


def test_stop_before_the_first_step_raises_and_writes_nothing(layout: Layout) -> None:
    with pytest.raises(Stopped) as raised:
        run(layout, LinearFramework(SETTINGS, stop_after_steps=0))
    assert raised.value.signal_number == 15
    assert not layout.checkpoints.exists()
    assert not layout.model.exists()


def test_finished_training_only_saves_its_model_again(layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first, second = LinearFramework(SETTINGS), LinearFramework(SETTINGS)
    run(layout, first)
    (layout.model / "model.onnx").unlink()
    run(layout, second)
    assert "resuming after 6 of 6 epochs" in caplog.text
    assert "; all epochs are done, only the model is saved" in caplog.text
    assert (second.training.steps, read_trained_weights(second)) == (0, read_trained_weights(first))
    assert (layout.model / "model.onnx").exists()


def test_checkpoint_with_more_epochs_than_requested_raises(layout: Layout) -> None:
    run(layout, LinearFramework(SETTINGS))
    with pytest.raises(UserError, match=r"has 6 epochs, more than the requested 5: increase epochs, or empty"):
        run(layout, LinearFramework(replace(SETTINGS, epochs=5)))


@pytest.mark.parametrize(
    ("change", "name"),
    [({"seed": 1}, "seed was 42"), ({"batch_size": 5}, "batch_size was 4"), ({"version": "2.0"}, "Linear was 1.0")],
)
def test_checkpoint_of_another_training_raises(layout: Layout, change: dict[str, Any], name: str) -> None:
    run(layout, LinearFramework(SETTINGS))
    version = change.pop("version", "1.0")
    with pytest.raises(UserError, match=f"is a checkpoint of another training: {name}, is"):
        run(layout, LinearFramework(replace(SETTINGS, **change), version=version))


def test_early_stopping_ends_after_epochs_without_a_lower_loss(layout: Layout) -> None:
    framework = LinearFramework(replace(SETTINGS, epochs=2000, early_stopping=3, learning_rate=0.2, best_weights=True))
    run(layout, framework)
    metrics = read_bundle(layout.model).manifest.metrics
    assert metrics["epochs"] == len(framework.training.logged_epochs) == metrics["best_epoch"] + 4 < 2000
    best = min(test_loss for _, _, test_loss in framework.training.logged_epochs)
    assert metrics["test_mse"] == pytest.approx(best, rel=0.01, abs=1e-9)


def test_diverged_training_leaves_no_model(layout: Layout) -> None:
    with pytest.raises(UserError, match="the training diverged: in epoch"), np.errstate(all="ignore"):
        run(layout, LinearFramework(replace(SETTINGS, learning_rate=1e200)))
    assert not (layout.model / "manifest.json").exists()


def test_diverged_part_of_an_epoch_is_not_saved(layout: Layout) -> None:
    settings = replace(SETTINGS, learning_rate=1e200)
    with pytest.raises(UserError, match="the training diverged: in epoch 0"), np.errstate(all="ignore"):
        run(layout, LinearFramework(settings, stop_after_steps=2))
    assert not layout.model.exists()
    assert not layout.checkpoints.exists()


def test_temporary_checkpoints_are_removed_at_the_end(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    run(layout, LinearFramework(SETTINGS, stop_after_steps=4))
    assert layout.checkpoints.exists()
    run(layout, LinearFramework(SETTINGS))
    assert not layout.checkpoints.exists()


@pytest.mark.parametrize(("batch_size", "sharded_splits"), [(4, ()), (0, ("train", "test"))])
def test_two_processes_train_like_one_process(batch_size: int, sharded_splits: tuple[str, ...], tmp_path: Path) -> None:
    settings = replace(SETTINGS, batch_size=batch_size)
    one_process = LinearFramework(settings)
    run(Layout(tmp_path / "single"), one_process)

    def work(group: ThreadGroup) -> list[float]:
        data, framework = make_data(*sharded_splits), LinearFramework(settings, group)
        if sharded_splits:
            x_train, y_train, x_test, y_test = data.x_train, data.y_train, data.x_test, data.y_test
            rows = slice(group.rank, None, 2)
            data = TrainingData(x_train[rows], y_train[rows], x_test[rows], y_test[rows], None, data.sharded_splits)
        run(Layout(tmp_path / str(group.rank)), framework, data)
        assert group.is_closed
        return read_trained_weights(framework)

    for weights in run_processes(work, 2):
        np.testing.assert_allclose(weights, read_trained_weights(one_process), rtol=1e-5)
    assert not (tmp_path / "1").exists()
    metrics, expected_metrics = (read_bundle(tmp_path / name / "model").manifest.metrics for name in ("0", "single"))
    for name in ("train_mae", "test_mse"):
        assert metrics[name] == pytest.approx(expected_metrics[name], rel=1e-5)


@pytest.mark.parametrize(("has_gpu", "expected"), [(True, "with compile"), (False, "no GPU: training without compile")])
def test_gpu_settings_are_logged(
    has_gpu: bool, expected: str, layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings, group = (
        TrainerHyperparameters(epochs=1, compile=True),
        ThreadGroup(SharedArrays(1), rank=0, has_gpu=has_gpu),
    )
    run(layout, LinearFramework(settings, group))
    assert "Linear 1.0+cpu on a thread" in caplog.text
    assert expected in caplog.text


def test_train_reports_invalid_data_before_it_loads_the_framework(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    with pytest.raises(UserError, match="channel 'train' is missing"):
        train(SETTINGS, lambda: pytest.fail("the framework was loaded"), lambda _: None)


def test_train_reads_channels_and_trains(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(layout.root))
    data = make_data()
    for split, x, y in (("train", data.x_train, data.y_train), ("test", data.x_test, data.y_test)):
        layout.channel(split).mkdir(parents=True)
        np.save(layout.channel(split) / f"x_{split}.npy", x)
        np.save(layout.channel(split) / f"y_{split}.npy", y)
    train(SETTINGS, lambda: LinearFramework, lambda _: None)
    assert read_bundle(layout.model).manifest.metrics["epochs"] == 6
