"""Reading the channels of a training job."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from microjobs.arrays import load_host_shards, save_array
from microjobs.columns import CategoricalColumn, FittedColumns, write_columns
from microjobs.contract import (
    Channel,
    Layout,
    ResourceConfig,
    write_input_data_config,
    write_training_resource_config,
)
from microjobs.errors import UserError
from microjobs.scaler import Scaler, write_scaler
from microjobs.trainer.data import load_data

WriteChannels = Callable[..., Layout]


@pytest.fixture
def write_channels(tmp_path: Path) -> WriteChannels:
    """A function that writes the channels `train` and `test`. Its arguments are their numbers of features."""

    def write(*, train_features: int = 2, test_features: int = 2) -> Layout:
        layout = Layout(tmp_path)
        for split, features in (("train", train_features), ("test", test_features)):
            layout.channel(split).mkdir(parents=True)
            np.save(layout.channel(split) / f"x_{split}.npy", np.ones((3, features)))
            np.save(layout.channel(split) / f"y_{split}.npy", np.ones(3))
        return layout

    return write


def test_channels_are_read_as_float32_with_two_dimensions(write_channels: WriteChannels) -> None:
    data = load_data(write_channels())
    assert (data.x_train.shape, data.y_test.shape) == ((3, 2), (3, 1))
    assert data.x_train.dtype == data.y_train.dtype == np.float32
    assert data.scaler is None


def test_missing_channel_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="channel 'train' is missing"):
        load_data(Layout(tmp_path))


def test_channels_of_different_width_raise(write_channels: WriteChannels) -> None:
    with pytest.raises(UserError, match="x_train has rows of length 2, but x_test has rows of length 3"):
        load_data(write_channels(train_features=2, test_features=3))


def test_scaler_feature_count_mismatch_raises(write_channels: WriteChannels) -> None:
    layout = write_channels()
    write_scaler(layout.channel("train"), Scaler(count=[3], mean=[0.0], scale=[1.0]))
    with pytest.raises(UserError, match=r"scaler\.json of channel train has 1 features, but x_train has 2"):
        load_data(layout)


def test_fingerprint_depends_on_values_and_shapes(write_channels: WriteChannels) -> None:
    data = load_data(write_channels())
    changed_data = dataclasses.replace(data, y_test=data.y_test + 1)
    fingerprint, changed_fingerprint = data.fingerprint(), changed_data.fingerprint()
    assert {name for name in fingerprint if fingerprint[name] != changed_fingerprint[name]} == {"y_test"}
    assert fingerprint["x_train"].startswith("(3, 2) sha256:")


def test_sample_is_the_first_1024_test_rows(write_channels: WriteChannels) -> None:
    data = load_data(write_channels())
    rows = np.arange(2000, dtype=np.float32)[:, np.newaxis]
    assert dataclasses.replace(data, x_test=rows).sample[:, 0].tolist() == list(range(1024))


def write_second_train_shard(layout: Layout, distribution: str, *hosts: str) -> None:
    """Write the second of two shards of the training data, all test data, and the configuration of the first host."""
    write_training_resource_config(layout, ResourceConfig(hosts[0], hosts))
    write_input_data_config(layout, {"train": Channel(distribution=distribution), "test": Channel()})
    for array_name in "xy":
        save_array(layout.channel("train") / f"{array_name}_train-00001-of-00002.npy", np.ones((3, 1)))
        save_array(layout.channel("test") / f"{array_name}_test.npy", np.ones((2, 1)))


def test_sharded_channel_needs_only_some_shards(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_second_train_shard(layout, "ShardedByS3Key", "algo-1", "algo-2")
    data = load_data(layout)
    assert data.sharded_splits == {"train"}
    assert len(data.x_train) == 3


@pytest.mark.parametrize(
    ("distribution", "hosts"), [("FullyReplicated", ("algo-1", "algo-2")), ("ShardedByS3Key", ("algo-1",))]
)
def test_missing_shard_raises_if_the_host_needs_all_shards(
    distribution: str, hosts: tuple[str, ...], tmp_path: Path
) -> None:
    write_second_train_shard(Layout(tmp_path), distribution, *hosts)
    with pytest.raises(UserError, match=r"x_train-00000-of-00002.npy is missing"):
        load_data(Layout(tmp_path))


def test_host_without_files_has_empty_arrays(tmp_path: Path) -> None:
    x, y = load_host_shards(tmp_path / "nowhere", "train")
    assert (x.shape, y.shape) == ((0, 0), (0, 1))


def test_shards_of_x_and_y_on_different_hosts_raise(tmp_path: Path) -> None:
    save_array(tmp_path / "x_train-00000-of-00003.npy", np.ones((3, 1)))
    save_array(tmp_path / "y_train-00001-of-00003.npy", np.ones(3))
    with pytest.raises(
        UserError, match=r"x_train-00000-of-00003.npy is on this host and y_train-00000-of-00003.npy is"
    ):
        load_host_shards(tmp_path, "train")


COLUMNS = FittedColumns((CategoricalColumn("a", "one-hot", ("x", "y")),), ignored=("price",))


def test_fitted_columns_are_read_with_the_training_data(write_channels: WriteChannels) -> None:
    layout = write_channels()
    write_columns(layout.channel("train"), COLUMNS)
    assert load_data(layout).columns == COLUMNS


def test_column_feature_count_mismatch_raises(write_channels: WriteChannels) -> None:
    layout = write_channels(train_features=3, test_features=3)
    write_columns(layout.channel("train"), COLUMNS)
    with pytest.raises(UserError, match=r"fitted-columns\.json of channel train has 2 features, but x_train has 3"):
        load_data(layout)


def test_scaler_and_columns_together_raise(write_channels: WriteChannels) -> None:
    layout = write_channels()
    write_columns(layout.channel("train"), COLUMNS)
    write_scaler(layout.channel("train"), Scaler(count=[3, 3], mean=[0.0, 0.0], scale=[1.0, 1.0]))
    with pytest.raises(
        UserError, match=r"channel train has scaler\.json and fitted-columns\.json: take its files from a single"
    ):
        load_data(layout)


def test_pipeline_is_read_with_the_training_data(write_channels: WriteChannels) -> None:
    layout = write_channels()
    (layout.channel("train") / "pipeline.onnx").write_bytes(b"onnx")
    assert load_data(layout).pipeline == b"onnx"
