"""A successful and a failing run of this job, for the tests of all images."""

import tarfile

import numpy as np

from microjobs.contract import Layout, ResourceConfig, write_processing_resource_config
from tests.bundles import write_linear_bundle
from tests.images.example import Example


def prepare(layout: Layout) -> None:
    bundle = layout.root.parent / "bundle"
    write_linear_bundle(bundle, [1.0, 2.0], 0.5)
    layout.processing("model").mkdir(parents=True)
    with tarfile.open(layout.processing("model") / "model.tar.gz", "w:gz") as tar:
        tar.add(bundle, ".")
    layout.processing("test").mkdir()
    rows = np.random.default_rng(0).normal(size=(20, 2))
    np.save(layout.processing("test") / "x_test.npy", rows)
    np.save(layout.processing("test") / "y_test.npy", rows @ [1.0, 2.0] + 0.5)
    layout.processing("batch").mkdir()
    write_processing_resource_config(layout, ResourceConfig())


def corrupt_model(layout: Layout) -> None:
    (layout.processing("model") / "model.tar.gz").write_bytes(b"not an archive")


EXAMPLE = Example(
    arguments=[],
    prepare=prepare,
    corrupt=corrupt_model,
    expected_error="model.tar.gz is not a complete tar archive",
    artifacts=(
        "processing/batch/predictions.npy",
        "processing/batch/score-report.txt",
        "processing/batch/report.json",
        "processing/batch/predicted-versus-target.png",
    ),
    max_megabytes=650,
)
