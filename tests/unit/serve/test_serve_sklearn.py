"""The image preprocess serves users' models of scikit-learn, by the convention of AWS's scikit-learn image."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from microjobs.hosting.handler_model import HandlerModel
from microjobs.hosting.service import Invocation
from microjobs_preprocess.default_functions import choose_defaults
from tests.conftest import CONTAINERS, REPOSITORY
from tests.unit.serve.conftest import run_server

JOB = str(CONTAINERS / "preprocess")
PROGRAM = """
import os, pickle
def model_fn(model_dir):
    with open(os.path.join(model_dir, "model.pickle"), "rb") as file:
        return pickle.load(file)
"""


@pytest.fixture
def sklearn_root(tmp_path: Path) -> Path:
    """A root with a model that returns the sum of three features, but without code."""
    from sklearn.linear_model import LinearRegression  # a slow import at the top would delay each pytest worker

    model = LinearRegression().fit(np.eye(3), [1.0, 1.0, 1.0])
    model.coef_, model.intercept_ = np.ones(3), 0.0
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.pickle").write_bytes(pickle.dumps(model))
    return tmp_path


def add_program(root: Path, program: str = PROGRAM) -> None:
    (root / "model" / "code").mkdir()
    (root / "model" / "code" / "inference.py").write_text(program)


@pytest.mark.slow
def test_program_with_model_fn_alone_is_served(sklearn_root: Path) -> None:
    add_program(sklearn_root)
    with run_server(sklearn_root, MICROJOBS_JOB=JOB) as server:
        server.wait_until_ready()
        assert server.invoke("[[1, 2, 3], [0, 0, 1]]").json == [6.0, 1.0]
        assert server.invoke("1,2,3\n0,0,2\n", "text/csv").json == [6.0, 2.0]
        # One row of CSV is a vector, as on AWS.
        assert "Expected 2D array, got 1D array" in server.invoke("1,2,3\n", "text/csv").error


@pytest.mark.usefixtures("clean_imports")
def test_program_of_the_hosting_page_loads_a_model(sklearn_root: Path) -> None:
    section = (REPOSITORY / "docs/using/hosting.md").read_text().partition("### scikit-learn's convention")[2]
    program = section.partition("```python\n")[2].partition("```")[0]
    (sklearn_root / "model/model.pickle").rename(sklearn_root / "model/model.joblib")  # joblib reads pickles, too
    add_program(sklearn_root, program)
    model = HandlerModel(
        sklearn_root / "model/code/inference.py", sklearn_root / "model", choose_defaults=choose_defaults
    )
    assert model.invoke(Invocation(b"[[1, 2, 3]]", "application/json", "", "")).body == b"[6.0]"


def test_bundle_is_served_as_in_the_image_serve(root: Path) -> None:
    with run_server(root, MICROJOBS_JOB=JOB) as server:
        server.wait_until_ready()
        assert server.invoke("1,2,3", "text/csv").body == b"6.0\n"


def test_model_without_code_is_not_loaded(sklearn_root: Path) -> None:
    with run_server(sklearn_root, MICROJOBS_JOB=JOB) as server:
        assert server.wait() == 2
    assert "It contains model.pickle; add code/inference.py with model_fn" in (server.failure or "")


def test_program_without_model_fn_ends_with_the_reason(sklearn_root: Path) -> None:
    add_program(sklearn_root, "def predict_fn(data, model): return data\n")
    with run_server(sklearn_root, MICROJOBS_JOB=JOB) as server:
        assert server.wait() == 2
    assert "a scikit-learn model needs code: define model_fn" in (server.failure or "")


def test_json_becomes_float32_and_csv_with_words_stays_text(tmp_path: Path) -> None:
    decode = choose_defaults(defined_functions={"model_fn"}, model_dir=tmp_path).input_fn
    assert decode("[[1, 2]]", "application/json").dtype == np.float32
    assert decode("a,b", "text/csv").dtype.kind == "U"
