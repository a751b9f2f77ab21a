"""A good and a bad run of this job, for the tests that every image inherits."""

from tests.images.example import Example
from tests.images.training import write_request, write_small

from microjobs.contract import Layout


def prepare(layout: Layout) -> None:
    write_request(layout, epochs=3)
    write_small(layout)


def spoil(layout: Layout) -> None:
    (layout.channel("train") / "y_train.npy").unlink()


EXAMPLE = Example(
    arguments=["train"],
    prepare=prepare,
    spoil=spoil,
    reason="has no y_train.npy",
    artifacts=(
        "model/model.onnx",
        "model/manifest.json",
        "model/scaler.json",
        "model/1/saved_model.pb",
        "output/data/metrics.json",
        "output/data/learning-curve.png",
        "output/data/predicted-versus-target.png",
    ),
    size_limit=2300,
)
