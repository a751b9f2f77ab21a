"""The log of Keras and the SavedModel that train-tensorflow writes."""

import re
from pathlib import Path

import pytest

from microjobs.contract import Layout
from tests.images.conftest import RunJob, RunPython
from tests.images.training import write_small_data, write_training_config

pytestmark = pytest.mark.engine

JOB = "train-tensorflow"
IN_IMAGE = Path(__file__).parent / "in_image"


@pytest.fixture
def layout(root: Path) -> Layout:
    layout = Layout(root)
    write_training_config(layout, epochs=3, batch_size=8)
    write_small_data(layout)
    return layout


def test_log_matches_the_metric_definitions_of_the_housing_notebook(layout: Layout, run_job: RunJob) -> None:
    """The housing notebook is the example on which this project is based; see `tests/clients/housing_notebook.py`."""
    log = run_job(JOB, ["train"], layout.root).log
    losses = [float(value) for value in re.findall(r" loss: ([0-9\.]+)", log)]
    validation_losses = [float(value) for value in re.findall(r" val_loss: ([0-9\.]+)", log)]
    assert len(losses) == len(validation_losses) == 3
    assert losses[2] < losses[0]


def test_raw_signature_scales_inside_the_model(layout: Layout, run_job: RunJob, run_python: RunPython) -> None:
    run_job(JOB, ["train"], layout.root)
    assert (layout.model / "1" / "saved_model.pb").exists()
    run_python(JOB, IN_IMAGE / "raw_equals_scaled.py", layout.root)


def test_training_on_two_devices_equals_one(root: Path, run_python: RunPython) -> None:
    log = run_python(JOB, IN_IMAGE / "two_devices.py", root).log
    assert "on 2 CPUs" in log
    assert "no GPU: training without mixed_precision" in log
