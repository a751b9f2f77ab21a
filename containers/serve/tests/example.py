"""A successful and a failing run of this job, for the tests of all images."""

from microjobs.bundle import MODEL_FILE
from microjobs.contract import Layout
from tests.bundles import write_linear_bundle
from tests.images.example import Example


def prepare(layout: Layout) -> None:
    write_linear_bundle(layout.model, [1.0, 2.0, 3.0], 0.5)


def corrupt(layout: Layout) -> None:
    (layout.model / MODEL_FILE).write_bytes(b"no model")


EXAMPLE = Example(
    arguments=["serve"],
    prepare=prepare,
    corrupt=corrupt,
    expected_error="is not a model that ONNX Runtime can load",
    max_megabytes=650,
)
