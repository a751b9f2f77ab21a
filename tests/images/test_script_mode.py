"""A user's train.py in the images with script mode."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from microjobs.contract import Layout
from microjobs.run import make_package_name
from tests.images.conftest import RunJob, StartJob
from tests.images.training import write_training_config

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("job", ["train-tensorflow", "train-pytorch", "preprocess"])]

CODE_FOLDER = "input/data/code"

RESULT_SCRIPT = """
import json, os, pathlib, sys
result = {"argv": sys.argv[1:], "train": os.environ["SM_CHANNEL_TRAIN"], "epochs": os.environ["SM_HP_EPOCHS"]}
pathlib.Path(os.environ["SM_MODEL_DIR"], "result.json").write_text(json.dumps(result))
"""
SAVING_SCRIPT = """
import os, pathlib, signal, sys, time
def save(*_):
    time.sleep(1)
    pathlib.Path(os.environ["SM_MODEL_DIR"], "saved").touch()
    sys.exit()
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(300)
"""

WriteProgram = Callable[..., Layout]


@pytest.fixture
def write_program(root: Path) -> WriteProgram:
    """A function that writes the program train.py below the contract's root, and a configuration that names it."""

    def write(script: str, **files: str) -> Layout:
        layout = Layout(root)
        write_training_config(
            layout,
            sagemaker_program="train.py",
            sagemaker_submit_directory=layout.to_contract_path(root / CODE_FOLDER),
            epochs=3,
            name="a b",
        )
        (root / CODE_FOLDER).mkdir()
        for name, content in {"train.py": script, **files}.items():
            (root / CODE_FOLDER / name).write_text(content)
        return layout

    return write


def test_script_gets_arguments_and_environment(job: str, write_program: WriteProgram, run_job: RunJob) -> None:
    layout = write_program(RESULT_SCRIPT)
    run = run_job(job, ["train"], layout.root)
    assert json.loads((layout.model / "result.json").read_text()) == {
        "argv": ["--epochs", "3", "--name", "a b"],
        "train": layout.to_contract_path(layout.channel("train")),
        "epochs": "3",
    }
    assert run.warnings() == []


def test_code_can_be_an_archive(job: str, write_program: WriteProgram, run_job: RunJob) -> None:
    layout = write_program(RESULT_SCRIPT)
    archive = layout.input_data / "sourcedir.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(layout.root / CODE_FOLDER / "train.py", "train.py")
    write_training_config(
        layout,
        sagemaker_program="train.py",
        sagemaker_submit_directory=layout.to_contract_path(archive),
        epochs=3,
        name="a b",
    )
    run_job(job, ["train"], layout.root)
    assert (layout.model / "result.json").exists()


def test_script_cannot_import_modules_of_the_job(job: str, write_program: WriteProgram, run_job: RunJob) -> None:
    package = make_package_name(job)
    layout = write_program(f"import {package}")
    run = run_job(job, ["train"], layout.root, exit_code=1)
    assert run.failure is not None
    assert f"No module named '{package}'" in run.failure


def test_failure_begins_with_the_error_of_the_script(job: str, write_program: WriteProgram, run_job: RunJob) -> None:
    layout = write_program("raise ValueError('7 is not a color')")
    run = run_job(job, ["train"], layout.root, exit_code=1)
    assert run.failure is not None
    assert run.failure.startswith("train.py failed: ValueError: 7 is not a color")


def test_missing_requirement_is_reported(job: str, write_program: WriteProgram, run_job: RunJob) -> None:
    layout = write_program("", **{"requirements.txt": "./missing-package\n"})
    run = run_job(job, ["train"], layout.root, exit_code=2)
    assert run.failure is not None
    assert run.failure.startswith("the requirements of 'train.py' cannot be installed: ")
    assert "missing-package" in run.failure


def test_missing_program_error_lists_the_files(job: str, write_program: WriteProgram, run_job: RunJob) -> None:
    layout = write_program("")
    write_training_config(
        layout,
        sagemaker_program="other.py",
        sagemaker_submit_directory=layout.to_contract_path(layout.root / CODE_FOLDER),
    )
    run = run_job(job, ["train"], layout.root, exit_code=2)
    assert run.failure == "sagemaker_program 'other.py' is not in the code, which contains train.py"


def test_unsupported_distribution_is_refused(job: str, write_program: WriteProgram, run_job: RunJob) -> None:
    layout = write_program("")
    write_training_config(layout, sagemaker_program="train.py", sagemaker_mpi_enabled=True)
    run = run_job(job, ["train"], layout.root, exit_code=2)
    assert run.failure is not None
    assert run.failure.startswith("sagemaker_mpi_enabled is not supported")


def test_script_saves_its_work_when_stopped(job: str, write_program: WriteProgram, start_job: StartJob) -> None:
    layout = write_program(SAVING_SCRIPT)
    running_job = start_job(job, ["train"], layout.root)
    running_job.wait_for_log("ready")
    running_job.stop(timeout=120)
    assert running_job.exit_code == 0, running_job.log
    assert (layout.model / "saved").exists()


def test_script_without_a_signal_handler_ends_with_143(
    job: str, write_program: WriteProgram, start_job: StartJob
) -> None:
    layout = write_program("import time; print('ready', flush=True); time.sleep(300)")
    running_job = start_job(job, ["train"], layout.root)
    running_job.wait_for_log("ready")
    assert running_job.stop(timeout=120) < 20
    assert running_job.exit_code == 143, running_job.log
    assert running_job.wait().failure is None
