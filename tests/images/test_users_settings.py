"""A user's variables, folders, UIDs and umasks do not break the programs of the images."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from microjobs.contract import DEFAULT_ROOT, Layout
from microjobs.interpreter import SYS_EXECUTABLE_VARIABLES
from tests.conftest import CONTAINERS, JOBS
from tests.images.conftest import RunJob, StartJob
from tests.images.example import load_example
from tests.images.test_every_image import GetImageAttributes, answers_ping, give_to_another_user, run_until_exit
from tests.images.training import write_training_config

pytestmark = pytest.mark.engine

CODE = f"{DEFAULT_ROOT}/code"
SHADOWING_MODULES = ("json", "main", "microjobs", "hyperparameters", "numpy", "queue", "sitecustomize", "usercustomize")
MISSING_FOLDER = "/nonexistent"
VARIABLES = {
    "PYTHONPATH": f"{CODE}:{MISSING_FOLDER}",
    "PYTHONHOME": MISSING_FOLDER,
    **dict.fromkeys(SYS_EXECUTABLE_VARIABLES, MISSING_FOLDER),
    "PYTHONSTARTUP": f"{CODE}/json.py",
    "PYTHONUSERBASE": CODE,
    "PYTHONSAFEPATH": "1",
    "PYTHONWARNINGS": "error",
    "PYTHONOPTIMIZE": "2",
    "PYTHONINSPECT": "1",
    "PYTHONIOENCODING": "ascii",
    "PYTHONUTF8": "0",
    "LD_LIBRARY_PATH": f"{CODE}:{MISSING_FOLDER}",
    "LANG": "C",
    "LC_ALL": "C",
    "HOME": MISSING_FOLDER,
    "PATH": MISSING_FOLDER,
    "TMPDIR": MISSING_FOLDER,
    "USER": "",
    "LOGNAME": "unknown-user",
    "MPLBACKEND": "nosuch",
    "MPLCONFIGDIR": MISSING_FOLDER,
    "KERAS_BACKEND": "nosuch",
    "KERAS_HOME": MISSING_FOLDER,
}


@dataclass(frozen=True)
class Settings:
    """Settings of a user: environment variables, options of docker-py, and a umask."""

    environment: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    umask: str | None = None


SETTINGS = {
    "variables": Settings(VARIABLES, {"working_dir": CODE}),
    "read-only-unknown-uid": Settings(options={"read_only": True, "user": "12345:23456"}),
    "umask-077-unknown-uid": Settings(options={"user": "12345:23456", "working_dir": "/root"}, umask="077"),
}


def write_shadowing_modules(folder: Path) -> None:
    """Write modules that end any program that imports one of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHADOWING_MODULES:
        (folder / f"{name}.py").write_text("import os\nos._exit(99)\n")


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_settings_do_not_break_the_images(
    job: str, settings: Settings, root: Path, start_job: StartJob, get_image_attributes: GetImageAttributes
) -> None:
    example, layout, options = load_example(CONTAINERS / job), Layout(root), dict(settings.options)
    example.prepare(layout)
    write_shadowing_modules(layout.code)
    give_to_another_user(root)
    if settings.umask:
        entrypoint = " ".join(get_image_attributes(job)["Config"]["Entrypoint"])
        options["entrypoint"] = ["sh", "-c", f'umask {settings.umask}; exec {entrypoint} "$@"', "sh"]
    run = run_until_exit(start_job, job, example, root, {"environment": settings.environment, **options})
    assert run.exit_code == 0, run.log
    assert [name for name in example.artifacts if not (root / name).is_file()] == []
    assert run.warnings() == []


WRITE_RESULT = """
import getpass, json, mylib, os, pathlib
result = {"mylib": mylib.__file__, "user": getpass.getuser(), "home": os.path.expanduser("~")}
pathlib.Path(os.environ["SM_MODEL_DIR"], "result.json").write_text(json.dumps(result))
"""


@pytest.mark.parametrize("job", ["train-tensorflow", "train-pytorch"])
def test_script_gets_the_python_path_and_the_user(job: str, root: Path, run_job: RunJob) -> None:
    """Requirements are installed although the code has a module `queue`, which pip would import."""
    layout, source = Layout(root), root / "input" / "data" / "code"
    write_training_config(
        layout, sagemaker_program="train.py", sagemaker_submit_directory=layout.to_contract_path(source)
    )
    (source / "lib").mkdir(parents=True)
    (source / "lib" / "mylib.py").touch()
    (source / "train.py").write_text(WRITE_RESULT)
    (source / "queue.py").write_text("raise RuntimeError('not for pip')")
    (source / "requirements.txt").write_text("numpy\n")  # numpy is already installed
    run_job(
        job,
        ["train"],
        root,
        environment={"PYTHONPATH": f"{CODE}/lib", "PYTHONHOME": MISSING_FOLDER, "PYTHONEXECUTABLE": MISSING_FOLDER},
    )
    result = json.loads((layout.model / "result.json").read_text())
    assert result == {"mylib": f"{CODE}/lib/mylib.py", "user": "root", "home": "/root"}


def test_handlers_get_the_users_python_path(root: Path, start_job: StartJob) -> None:
    code = root / "model" / "code"
    (code / "lib").mkdir(parents=True)
    (code / "lib" / "mylib.py").touch()
    (code / "inference.py").write_text(
        "import mylib\ndef model_fn(folder): return mylib.__name__\ndef predict_fn(data, model): return model\n"
    )
    environment = {"PYTHONPATH": f"{DEFAULT_ROOT}/model/code/lib"}
    running_job = start_job("serve", ["serve"], root, environment=environment)
    running_job.wait_until(lambda: answers_ping(running_job), "200 on /ping", timeout=60)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"SAGEMAKER_BASE_DIR": MISSING_FOLDER}, f"SAGEMAKER_BASE_DIR '{MISSING_FOLDER}' is not a folder"),
        ({"SAGEMAKER_CONTAINER_LOG_LEVEL": "loud"}, "SAGEMAKER_CONTAINER_LOG_LEVEL 'loud' is not a log level"),
    ],
)
def test_invalid_setting_is_reported(environment: dict[str, str], reason: str, root: Path, run_job: RunJob) -> None:
    run = run_job("preprocess", [], root, environment=environment, exit_code=2)
    assert run.failure is not None
    assert run.failure.startswith(reason)


FRAMEWORK_PROCESSOR_SCRIPT = """
mkdir /code && cd /code && touch requirements.txt
set -e
if [[ -f 'requirements.txt' ]]; then
    pip uninstall --yes typing
    pip install -r requirements.txt
fi
"""
"""A script that makes a folder with a requirements file. From `set -e` on, it consists of the first lines of the entry
point that the SDK's FrameworkProcessor uploads."""


@pytest.mark.parametrize("job", JOBS)
def test_entry_point_runs_pip_or_reports_the_image_without_pip(job: str, root: Path, start_job: StartJob) -> None:
    run = start_job(job, ["-c", FRAMEWORK_PROCESSOR_SCRIPT], root, entrypoint="/bin/bash").wait()
    has_pip = "\npip==" in (CONTAINERS / job / "cpu.lock").read_text()
    assert run.exit_code == (0 if has_pip else 2), run.log
    if not has_pip:
        assert run.failure is not None
        assert run.failure.startswith(f"image {job} has no pip")
