"""A successful and a failing run of this job, for the tests of all images."""

import numpy as np

from microjobs.contract import Layout, ResourceConfig, write_processing_resource_config
from tests.images.example import Example


def prepare(layout: Layout) -> None:
    folder = layout.processing("input")
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for split, rows in (("train", 40), ("test", 10)):
        np.save(folder / f"x_{split}.npy", random.normal(5, 3, (rows, 4)))
        np.save(folder / f"y_{split}.npy", random.normal(size=rows))
    for split in ("train", "test"):
        layout.processing(split).mkdir()
    write_processing_resource_config(layout, ResourceConfig())


def corrupt(layout: Layout) -> None:
    path = layout.processing("input") / "x_train.npy"
    rows = np.load(path)
    rows[7, 2] = np.nan
    np.save(path, rows)


EXAMPLE = Example(
    arguments=[],
    prepare=prepare,
    corrupt=corrupt,
    expected_error="x_train.npy row 7 contains nan",
    artifacts=(
        "processing/train/x_train.npy",
        "processing/train/y_train.npy",
        "processing/train/scaler.json",
        "processing/test/x_test.npy",
        "processing/test/y_test.npy",
    ),
    max_megabytes=900,
)
