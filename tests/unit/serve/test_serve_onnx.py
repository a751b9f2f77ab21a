"""ONNX models without a manifest: several inputs and outputs, text, dicts and image bytes."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, save

from microjobs.bundle import MODEL_FILE
from microjobs.hosting.onnx_model import OnnxModel
from microjobs.hosting.responses import HttpError
from microjobs.hosting.service import Invocation
from tests.unit.serve.conftest import run_server

make_tensor_info = helper.make_tensor_value_info
ML_DOMAIN = "ai.onnx.ml"


def write_model(
    path: Path, nodes: list[NodeProto], inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]
) -> OnnxModel:
    path.parent.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(nodes, "any", inputs, outputs)
    opset = [helper.make_opsetid("", 18), helper.make_opsetid(ML_DOMAIN, 3)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return OnnxModel(path)


@pytest.fixture
def classifier(tmp_path: Path) -> OnnxModel:
    """A classifier as skl2onnx exports it: a label as text, and a dict of probabilities."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["p"]),
        helper.make_node("ArgMax", ["x"], ["index"], axis=1, keepdims=0),
        helper.make_node(
            "LabelEncoder",
            ["index"],
            ["label"],
            domain=ML_DOMAIN,
            keys_int64s=[0, 1],
            values_strings=["cat", 'a "dog"'],
        ),
        helper.make_node("ZipMap", ["p"], ["probabilities"], domain=ML_DOMAIN, classlabels_strings=["cat", "dog"]),
    ]
    probabilities = helper.make_value_info(
        "probabilities",
        helper.make_sequence_type_proto(
            helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        ),
    )
    outputs = [make_tensor_info("label", TensorProto.STRING, [None]), probabilities]
    return write_model(tmp_path / MODEL_FILE, nodes, [make_tensor_info("x", TensorProto.FLOAT, [None, 2])], outputs)


@pytest.fixture
def columns_model(tmp_path: Path) -> OnnxModel:
    """A model with a column of text, a column of numbers, and an output for each."""
    nodes = [helper.make_node("Identity", ["city"], ["same"]), helper.make_node("Add", ["age", "age"], ["double"])]
    inputs = [
        make_tensor_info("city", TensorProto.STRING, [None, 1]),
        make_tensor_info("age", TensorProto.INT64, [None, 1]),
    ]
    outputs = [
        make_tensor_info("same", TensorProto.STRING, [None, 1]),
        make_tensor_info("double", TensorProto.INT64, [None, 1]),
    ]
    return write_model(tmp_path / MODEL_FILE, nodes, inputs, outputs)


@pytest.fixture
def file_model(tmp_path: Path) -> OnnxModel:
    """A model whose input is the bytes of a file."""
    nodes = [helper.make_node("Shape", ["file"], ["size"])]
    return write_model(
        tmp_path / MODEL_FILE,
        nodes,
        [make_tensor_info("file", TensorProto.UINT8, [None])],
        [make_tensor_info("size", TensorProto.INT64, [1])],
    )


def invoke(model: OnnxModel, body: bytes | str, content_type: str = "application/json", accept: str = "") -> bytes:
    data = body.encode() if isinstance(body, str) else body
    return model.invoke(Invocation(data, content_type, accept, "")).body


def invoke_json(model: OnnxModel, body: Any) -> Any:
    return json.loads(invoke(model, json.dumps(body)))


def read_error(model: OnnxModel, body: bytes | str, content_type: str = "application/json", accept: str = "") -> str:
    with pytest.raises(HttpError) as failure:
        invoke(model, body, content_type, accept)
    return f"{failure.value.status} {failure.value}"


def test_labels_and_probabilities_are_predicted(classifier: OnnxModel) -> None:
    (first, second) = invoke_json(classifier, {"instances": [[2, 0], [0, 2]]})["predictions"]
    assert (first["label"], second["label"]) == ("cat", 'a "dog"')
    assert first["probabilities"] == pytest.approx({"cat": 0.880797, "dog": 0.119203})
    assert invoke_json(classifier, {"inputs": [[2, 0]]})["outputs"]["label"] == ["cat"]
    assert invoke_json(classifier, {"inputs": {"x": [[2, 0]]}})["outputs"]["label"] == ["cat"]
    assert invoke_json(classifier, [[2, 0]])["predictions"][0]["label"] == "cat"
    assert invoke_json(classifier, [{"x": [2, 0]}])["predictions"][0]["label"] == "cat"


def test_each_format_is_supported(classifier: OnnxModel) -> None:
    assert invoke(classifier, "0,0\n0,2\n", "text/csv").decode().splitlines()[0] == "cat,0.5,0.5"
    assert invoke(classifier, "0,2", "text/csv").startswith(b'"a ""dog""",0.1')
    lines = invoke(classifier, "[0, 0]\n[0, 0]\n", "application/jsonlines").splitlines()
    assert lines == [b'{"label":"cat","probabilities":{"cat":0.5,"dog":0.5}}'] * 2
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((1, 2)))
    assert json.loads(invoke(classifier, buffer.getvalue(), "application/x-npy", "application/json"))["predictions"]
    assert "406 the outputs are not one array" in read_error(classifier, buffer.getvalue(), "application/x-npy")


def test_columns_of_text_and_numbers_are_inputs(columns_model: OnnxModel) -> None:
    row = {"city": "Bonn", "age": 37}
    assert invoke_json(columns_model, [row, row])["predictions"] == [{"same": ["Bonn"], "double": [74]}] * 2
    outputs = invoke_json(columns_model, {"inputs": {"city": [["Bonn"]], "age": [[37]]}})["outputs"]
    assert outputs == {"same": [["Bonn"]], "double": [[74]]}
    assert invoke(columns_model, json.dumps(row), "application/jsonlines", "text/csv") == b"Bonn,74\n"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('[{"city": "Bonn"}]', "400 row 0 has 'city': the model has the inputs city, age"),
        ('{"inputs": {"city": [["a"]]}}', "400 \"inputs\" has 'city': the model has the inputs city, age"),
        ('[{"city": 1, "age": 1}]', "400 the value 1 is not text"),
        ('[{"city": "a", "age": 1.5}]', "400 input age has values of type decimal: send int64 of shape (?, 1)"),
        ('[{"city": "a", "age": "1"}]', "400 input age has values of type text"),
        ('[{"city": "a", "age": 99999999999999999999}]', "400 input age has values of type"),
        ('[{"city": "a", "age": [1, 2]}]', "400 input age has shape (1, 2): send int64 of shape (?, 1)"),
        ("[[1, 2]]", "400 a row without names is ambiguous: the model has the inputs city, age"),
        ('{"instances": []}', "400 instances is []: send a list of rows"),
        ('{"rows": []}', '400 the body has \'rows\': send "instances" or "inputs"'),
        ('[{"city": "a", "age": 1}, 2]', "400 row 1 has no names"),
        ('{"instances": [], "signature_name": "raw"}', "400 signature_name 'raw' is unknown"),
    ],
)
def test_error_for_an_unsuitable_request_names_the_problem(columns_model: OnnxModel, body: str, expected: str) -> None:
    assert expected in read_error(columns_model, body)


def test_rows_of_another_length_are_refused(classifier: OnnxModel) -> None:
    assert "400 input x has lists of different lengths: send float32 of shape (?, 2)" in read_error(
        classifier, "[[1], [1, 2]]"
    )
    assert "400 input x has shape (1, 3)" in read_error(classifier, "1,2,3", "text/csv")


@pytest.mark.parametrize("content_type", ["image/png", "application/x-image", "application/octet-stream"])
def test_bytes_of_an_image_are_an_input(file_model: OnnxModel, content_type: str) -> None:
    assert json.loads(invoke(file_model, b"\x89PNG123", content_type)) == {"outputs": [7]}
    text = base64.b64encode(b"\x89PNG123").decode()
    assert invoke_json(file_model, {"inputs": {"file": {"b64": text}}}) == {"outputs": [7]}
    assert invoke_json(file_model, {"inputs": {"b64": text}}) == {"outputs": [7]}
    assert "400 input file is not base64" in read_error(file_model, '{"inputs": {"b64": "?"}}')


def test_bytes_are_refused_by_other_models(classifier: OnnxModel) -> None:
    assert "415 Content-Type 'image/png': input x takes float32 of shape (?, 2); send JSON" in read_error(
        classifier, b"\x89PNG", "image/png"
    )


def test_model_with_one_numeric_output_answers_npy(tmp_path: Path) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    model = write_model(
        tmp_path / MODEL_FILE,
        nodes,
        [make_tensor_info("x", TensorProto.FLOAT, ["n", 2])],
        [make_tensor_info("y", TensorProto.FLOAT, ["n", 2])],
    )
    buffer = io.BytesIO()
    np.save(buffer, np.ones((3, 2), np.float32))
    response = np.load(io.BytesIO(invoke(model, buffer.getvalue(), "application/x-npy")))
    assert response.tolist() == [[-1, -1]] * 3
    assert invoke(model, "[[1.5, 0.1]]") == b'{"predictions":[[-1.5,-0.1]]}'


@pytest.mark.usefixtures("classifier")
def test_server_serves_a_model_without_a_manifest(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "model").mkdir(parents=True)
    (tmp_path / MODEL_FILE).rename(root / "model" / MODEL_FILE)
    with run_server(root, SAGEMAKER_MODEL_SERVER_WORKERS="2") as server:
        server.wait_until_ready()
        assert server.invoke("0,0", "text/csv").body == b"cat,0.5,0.5\n"
        assert server.invoke("0", "text/csv").status == 400
    assert "x: float32 of shape (?, 2)" in server.log
    assert server.find_logged_problems() == []
