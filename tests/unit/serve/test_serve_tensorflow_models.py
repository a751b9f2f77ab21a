"""Tests, without TensorFlow, of the models that the image train-tensorflow finds in the model folder and loads."""

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest

from microjobs.contract import Layout
from microjobs.errors import UserError
from microjobs_train_tensorflow.serving import model as model_module
from microjobs_train_tensorflow.serving import model_source
from microjobs_train_tensorflow.serving.rest_api import SavedModel
from microjobs_train_tensorflow.serving.servables import Versions, find_servables
from tests.conftest import CONTAINERS
from tests.unit.serve.conftest import run_server
from tests.unit.serve.saved_models import make_fake_models
from tests.unit.serve.test_serve_code import write_files

pytestmark = pytest.mark.usefixtures("clean_imports")

JOB = str(CONTAINERS / "train-tensorflow")


def write_savedmodels(*paths: Path) -> None:
    for path in paths:
        path.mkdir(parents=True)
        (path / "saved_model.pb").write_bytes(b"")


def test_servables_are_found_in_each_layout(tmp_path: Path) -> None:
    assert find_servables(tmp_path) == {}
    unversioned, version_1, version_10, version_7 = (
        tmp_path / name for name in ("top", "model/1", "model/10", "model/export/Servo/7")
    )
    write_savedmodels(unversioned, version_1, version_10, version_7)
    assert find_servables(unversioned) == {"model": {1: unversioned}}
    assert find_servables(tmp_path / "model") == {"model": {1: version_1, 10: version_10}, "Servo": {7: version_7}}
    write_savedmodels(tmp_path / "b" / "Servo" / "1")
    with pytest.raises(UserError, match="are both named 'Servo': rename one of the folders"):
        find_servables(tmp_path)


def test_unversioned_savedmodels_are_served_only_without_versioned_savedmodels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backup, servo = tmp_path / "backup", tmp_path / "Servo"
    write_savedmodels(backup, servo)
    assert find_servables(tmp_path) == {"backup": {1: backup}, "Servo": {1: servo}}
    assert not caplog.messages
    write_savedmodels(servo / "1")
    assert find_servables(tmp_path) == {"Servo": {1: servo / "1"}}
    reason = "is not served, because other SavedModels are in folders with a number"
    assert caplog.messages == [f"{servo} {reason}", f"{backup} {reason}"]


def test_savedmodels_of_the_program_are_not_served(tmp_path: Path) -> None:
    write_savedmodels(tmp_path / "code" / "tokenizer" / "1", tmp_path / "export" / "code" / "3")
    assert find_servables(tmp_path) == {"code": {3: tmp_path / "export" / "code" / "3"}}


def test_two_savedmodels_of_one_version_are_an_error(tmp_path: Path) -> None:
    write_savedmodels(tmp_path / "Servo" / "01", tmp_path / "Servo" / "1")
    with pytest.raises(UserError, match=r"Servo/01 and .*Servo/1 are both version 1: rename one of the folders"):
        find_servables(tmp_path)


class FakeTensorFlow(ModuleType):
    """Replaces the module that imports TensorFlow, and records the calls of its functions."""

    def __init__(self) -> None:
        super().__init__("saved_models")
        self.calls: list[str] = []

    def prepare(self) -> None:
        self.calls.append("prepare")

    def configure(self) -> None:
        self.calls.append("configure")

    def load_models(self, _servables: Mapping[str, Versions]) -> dict[str, dict[int, SavedModel]]:
        self.calls.append("load")
        return make_fake_models()


@pytest.fixture
def tensorflow(monkeypatch: pytest.MonkeyPatch) -> FakeTensorFlow:
    fake = FakeTensorFlow()
    monkeypatch.setitem(sys.modules, "microjobs_train_tensorflow.serving.saved_models", fake)
    monkeypatch.setattr(model_source, "prepare_tensorflow", fake.prepare)
    monkeypatch.setattr(model_module, "RestServer", Mock())
    return fake


def load(root: Path, program: str) -> Any:
    """Load the model with this program, and return the program's global RESULT."""
    write_files(root / "model" / "code", {"user_program.py": program})
    with ExitStack() as cleanup:
        model_source.find_model_source(Layout(root), {"SAGEMAKER_PROGRAM": "user_program"}, cleanup).load()
    return sys.modules["user_program"].RESULT


RECORDING_PROGRAM = """
import sys
RESULT = list(sys.modules["microjobs_train_tensorflow.serving.saved_models"].calls)
"""
HANDLER = "def handler(data, context): return data, 'text/plain'\n"
FUNCTIONS = "def model_fn(model_dir): return 1\ndef transform_fn(model, data, content_type, accept): return data\n"


@pytest.mark.parametrize("functions", [HANDLER, FUNCTIONS])
def test_tensorflow_is_configured_before_the_program_is_imported(
    tmp_path: Path, tensorflow: FakeTensorFlow, functions: str
) -> None:
    write_savedmodels(tmp_path / "model" / "sum" / "1")
    assert load(tmp_path, RECORDING_PROGRAM + functions) == ["prepare", "configure"]
    assert ("load" in tensorflow.calls) == (functions == HANDLER)


def test_program_without_savedmodels_configures_tensorflow_itself(tmp_path: Path, tensorflow: FakeTensorFlow) -> None:
    assert load(tmp_path, RECORDING_PROGRAM + FUNCTIONS) == ["prepare"]
    assert tensorflow.calls == ["prepare"]


@pytest.mark.usefixtures("tensorflow")
def test_packages_of_the_program_replace_installed_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path / "installed", {"greeting.py": "TEXT = 'installed'\n", "tone.py": "TEXT = 'installed'\n"})
    monkeypatch.syspath_prepend(tmp_path / "installed")
    write_files(tmp_path / "model" / "code", {"greeting.py": "TEXT = 'code'\n"})
    write_files(tmp_path / "model" / "code" / "lib", {"greeting.py": "TEXT = 'lib'\n", "tone.py": "TEXT = 'lib'\n"})
    texts = load(tmp_path, "import greeting, tone\nRESULT = [greeting.TEXT, tone.TEXT]\n" + FUNCTIONS)
    assert texts == ["code", "lib"]


def test_bundle_of_another_framework_is_served(root: Path) -> None:
    with run_server(root, MICROJOBS_JOB=JOB) as server:
        server.wait_until_ready()
        assert server.invoke('{"instances": [[3, 4, 7]], "signature_name": "raw"}').json == {"predictions": [[3.0]]}


def test_program_with_model_fn_is_served(tmp_path: Path) -> None:
    code = tmp_path / "model" / "code"
    (code / "lib").mkdir(parents=True)
    (code / "lib" / "greeting.py").write_text("TEXT = 'hello'\n")
    (code / "inference.py").write_text(
        "import greeting\ndef model_fn(folder): return greeting.TEXT\ndef transform_fn(m, b, c, a): return m, c\n"
    )
    with run_server(tmp_path, MICROJOBS_JOB=JOB) as server:
        server.wait_until_ready()
        assert server.invoke("x", "text/plain").body == b"hello"
        assert "DELETE /v1/models/x is not found" in server.request("DELETE", "/v1/models/x").error


@pytest.mark.parametrize(
    ("file", "environment", "reason"),
    [
        (
            "model.keras",
            {},
            "has no SavedModel, code/inference.py or bundle of the train jobs. It contains model.keras; save",
        ),
        ("code/inference.py", {}, "has no SavedModel, which inference.py needs. It contains code/"),
        ("1/saved_model.pb", {"SAGEMAKER_TFS_DEFAULT_MODEL_NAME": "x"}, "is 'x', but the model folder has model"),
    ],
)
def test_error_for_an_unusable_model_folder_names_its_content(
    tmp_path: Path, file: str, environment: dict[str, str], reason: str
) -> None:
    path = tmp_path / "model" / file
    path.parent.mkdir(parents=True)
    path.write_text("def handler(data, context): return data, 'text/plain'\n")
    with run_server(tmp_path, MICROJOBS_JOB=JOB, **environment) as server:
        assert server.wait() == 2
    assert reason in (server.failure or "")
