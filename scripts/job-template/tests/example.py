"""A successful and a failing run of this job, for the tests of all images."""

import numpy as np

from microjobs.contract import (
    Channel,
    Layout,
    ResourceConfig,
    write_hyperparameters,
    write_input_data_config,
    write_training_resource_config,
)
from tests.images.example import Example


def prepare(layout: Layout) -> None:
    write_hyperparameters(layout, {"trim": 0.1})
    write_input_data_config(layout, {"train": Channel()})
    write_training_resource_config(layout, ResourceConfig())
    layout.channel("train").mkdir(parents=True)
    np.save(layout.channel("train") / "y_train.npy", np.arange(10.0))
    for folder in (layout.model, layout.output_data):
        folder.mkdir(parents=True)


def corrupt(layout: Layout) -> None:
    write_hyperparameters(layout, {"trimm": 0.1})


EXAMPLE = Example(
    arguments=["train"],
    prepare=prepare,
    corrupt=corrupt,
    expected_error="'trimm' (value '0.1') is unknown: did you mean 'trim'?",
    artifacts=("model/model.json",),
)
