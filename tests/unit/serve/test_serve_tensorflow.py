"""TensorFlow Serving's REST API without TensorFlow; tests/images/test_hosting.py runs SavedModels."""

import io
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microjobs.hosting.responses import HttpError, HttpResponse
from microjobs.hosting.service import Invocation
from microjobs_train_tensorflow.serving.model import TensorFlowModel
from microjobs_train_tensorflow.serving.rest_api import RestApi
from microjobs_train_tensorflow.serving.tensors import widen_outputs
from tests.unit.serve.saved_models import make_fake_models

MEMBERS = ("instances", "inputs")
SIGNATURES = ("serving_default", "words", "total", "text", "long", "bfloat16", "int4")


@pytest.fixture
def model() -> TensorFlowModel:
    return TensorFlowModel(make_fake_models(), "sum")


def call_rest_api(model: TensorFlowModel, method: str, path: str, body: str = "") -> tuple[int, Any]:
    response = model.invoke(Invocation(body.encode(), "", "", "", None, method, path))
    assert response.headers == [("content-type", "application/json")]
    return response.status, json.loads(response.body)


def invoke(
    model: TensorFlowModel, body: str | bytes, content_type: str = "", accept: str = "", attributes: str = ""
) -> HttpResponse:
    content = body.encode() if isinstance(body, str) else body
    return model.invoke(Invocation(content, content_type, accept, attributes))


def make_words_body(*rows: str) -> str:
    return f'{{"signature_name": "words", "instances": [{", ".join(rows)}]}}'


PREDICTIONS_AND_ERRORS = {
    '{"instances": [[1, 2, 3], [0, 0, 0.5]]}': {"predictions": [[60.0], [5.0]]},
    '{"inputs": [[1, 2, 3]]}': {"outputs": [[60.0]]},
    '{"inputs": {"x": [[1, 2, 3]]}}': {"outputs": [[60.0]]},
    '{"instances": [{"x": [1, 2, 3]}]}': {"predictions": [[60.0]]},
    '{"inputs": []}': "input 'x' has shape (0,): the signature expects (?, 3)",
    '{"signature_name": "total", "inputs": [1, 2]}': {"outputs": 3},
    '{"signature_name": "total", "instances": [1, 2]}': "output 'total' has shape () for 2 rows: send \"inputs\"",
    '{"signature_name": "total", "inputs": [1.5]}': "input 'n' is [1.5]: the signature expects int32",
    '{"signature_name": "total", "inputs": [3000000000]}': "a number is out of the range of int32",
    '{"signature_name": "total", "inputs": [true]}': "the signature expects int32",
    '{"signature_name": "other", "inputs": [1]}': "signature_name 'other' is unknown: the model has serving_default,",
    '{"signature_name": 1, "inputs": [1]}': "signature_name 1 is unknown",
    '{"instances": [[1, 2]]}': "input 'x' has shape (1, 2): the signature expects (?, 3)",
    '{"instances": [[1, 2, 3], [4]]}': "its lists differ in length or depth",
    '{"instances": [["1", "2", "3"]]}': "input 'x' is [['1', '2', '3']]: the signature expects float32",
    '{"instances": [[true, 2, 3]]}': "input 'x' is [[True, 2, 3]]: the signature expects float32",
    '{"instances": []}': '"instances" is []: send a list with at least one row',
    '{"instances": [{"y": 1}]}': "row 0 is {'y': 1}: send an object with the inputs x",
    '{"instances": [{"x": [1, 2, 3]}, 2]}': "row 1 is 2",
    '{"inputs": {"y": 1}}': '"inputs" has y: the signature has the inputs x',
    '{"instances": [[1, 2, 3]], "inputs": 1}': 'send an object with "instances" or "inputs"',
    '{"instances": [[1, 2, 3]], "other": 1}': "'other'",
    "[[1, 2, 3]]": "the body has [[1, 2, 3]]",
    "nonsense": "JSON Parse error: ",
    '{"signature_name": "words", "instances": [1]}': "the signature has the inputs count, word",
    make_words_body('{"count": 1, "word": 1}'): "input 'word' contains 1: send text, or bytes as",
    make_words_body('{"count": 1, "word": {"b64": "?"}}'): "input 'word' contains {'b64': '?'}",
    make_words_body('{"count": 1, "word": {"b64": "é"}}'): "input 'word' contains {'b64': 'é'}",
    make_words_body('{"count": 1, "word": "\\ud800"}'): "input 'word' contains '\\ud800': send text, or bytes",
    make_words_body('{"count": 1, "word": ["a"]}', '{"count": 1, "word": "a"}'): "its lists differ in length or depth",
}
"""The content of the response, or a part of the error message, by body."""


@pytest.mark.parametrize(("body", "expected"), PREDICTIONS_AND_ERRORS.items())
def test_predict_returns_predictions_or_a_reason(model: TensorFlowModel, body: str, expected: Any) -> None:
    status, content = call_rest_api(model, "POST", "/v1/models/sum:predict", body)
    if isinstance(expected, dict):
        assert (status, content) == (200, expected)
    else:
        assert expected in content["error"]
        assert status == (500 if "has shape ()" in expected else 400)


def test_several_outputs_are_objects_and_bytes_are_base64(model: TensorFlowModel) -> None:
    body = make_words_body('{"count": 2, "word": "né"}', '{"count": 0, "word": {"b64": "/w=="}}')
    _, content = call_rest_api(model, "POST", "/v1/models/sum:predict", body)
    first, second = content["predictions"]
    assert first == {"inverse": [0.5], "repeated": "néné", "repeated_bytes": {"b64": "bsOpbsOp"}}
    assert second == {"inverse": [math.inf], "repeated": "", "repeated_bytes": {"b64": ""}}
    columns = '{"signature_name": "words", "inputs": {"count": [1], "word": [{"b64": "/w=="}]}}'
    _, content = call_rest_api(model, "POST", "/v1/models/sum:predict", columns)
    assert content == {
        "outputs": {"inverse": [[1.0]], "repeated": [{"b64": "/w=="}], "repeated_bytes": [{"b64": "/w=="}]}
    }


def test_not_a_number_is_read_and_written_as_in_tensorflow_serving(model: TensorFlowModel) -> None:
    response = model.invoke(
        Invocation(b'{"instances": [[NaN, 1, 2]]}', "", "", "", None, "POST", "/v1/models/sum:predict")
    )
    assert response.body == b'{"predictions": [[NaN]]}'


def test_versions_and_models_have_paths(model: TensorFlowModel) -> None:
    body = '{"instances": [[1, 0, 0]]}'
    assert call_rest_api(model, "POST", "/v1/models/sum/versions/2:predict", body) == (200, {"predictions": [[2.0]]})
    assert call_rest_api(model, "POST", "/v1/models/other:predict", body) == (200, {"predictions": [[100.0]]})
    status, content = call_rest_api(model, "POST", f"/v1/models/sum/versions/{'1' * 5000}:predict", body)
    assert status == 400
    assert "Malformed request" in content["error"]
    status, content = call_rest_api(model, "POST", "/v1/models/sum/versions/3:predict", body)
    assert (status, content["error"]) == (
        404,
        "Servable not found for request: Specific(sum, 3). The models (versions) are sum (1, 2, 10), other (1)",
    )
    assert call_rest_api(model, "GET", "/v1/models/none")[0] == 404


def test_status_and_metadata_describe_versions(model: TensorFlowModel) -> None:
    _, content = call_rest_api(model, "GET", "/v1/models/sum")
    assert [(item["version"], item["state"]) for item in content["model_version_status"]] == [
        ("10", "AVAILABLE"),
        ("2", "AVAILABLE"),
        ("1", "AVAILABLE"),
    ]
    _, content = call_rest_api(model, "GET", "/v1/models/sum/versions/2")
    assert [item["version"] for item in content["model_version_status"]] == ["2"]
    _, content = call_rest_api(model, "GET", "/v1/models/sum/metadata")
    assert content["model_spec"] == {"name": "sum", "signature_name": "", "version": "10"}
    assert "serving_default" in content["metadata"]["signature_def"]["signature_def"]


SURROGATES = st.text(st.characters(categories=["Cs"]), max_size=2)
TEXTS = st.text(max_size=3) | SURROGATES
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | TEXTS
    | st.just({"b64": "aGk="})
    | st.fixed_dictionaries({"b64": TEXTS}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "word", "count", "n"]), inner),
    max_leaves=8,
)


@given(signature=st.sampled_from(SIGNATURES), member=st.sampled_from(MEMBERS), value=VALUES)
def test_any_body_gets_a_known_status(signature: str, member: str, value: Any) -> None:
    body = json.dumps({"signature_name": signature, member: value}).encode()
    response = RestApi(make_fake_models()).answer("POST", "/v1/models/sum:predict", body)
    may_fail = signature == "total" and member == "instances"  # the output of this signature has no rows
    assert response.status in ((200, 400, 500) if may_fail else (200, 400)), response.body


@given(st.lists(TEXTS | st.fixed_dictionaries({"b64": TEXTS}), min_size=1, max_size=2))
def test_any_text_gets_status_200_or_400(texts: list[Any]) -> None:
    body = json.dumps({"signature_name": "text", "inputs": texts}).encode()
    assert RestApi(make_fake_models()).answer("POST", "/v1/models/sum:predict", body).status in (200, 400)


@pytest.mark.parametrize("depth", [500, 100_000])
@pytest.mark.parametrize("signature", ["serving_default", "words"])
def test_deeply_nested_body_gets_status_400(model: TensorFlowModel, signature: str, depth: int) -> None:
    nested = "[" * depth + "1" + "]" * depth
    value = nested if signature == "serving_default" else '{"count": [1], "word": ' + nested.replace("1", '""') + "}"
    body = f'{{"signature_name": "{signature}", "inputs": {value}}}'
    assert call_rest_api(model, "POST", "/v1/models/sum:predict", body)[0] == 400


def test_body_that_could_fill_the_memory_gets_status_400(model: TensorFlowModel) -> None:
    # as an array of text, this body would need 40 GB
    body = '{"inputs": ["' + "x" * 100_000 + '"' + ', "y"' * 100_000 + "]}"
    assert call_rest_api(model, "POST", "/v1/models/sum:predict", body)[0] == 400


def test_npy_of_another_type_gets_status_400(model: TensorFlowModel) -> None:
    body = io.BytesIO()
    np.save(body, np.array([["1", "2", "3"]]))
    with pytest.raises(HttpError, match="the signature expects float32"):
        invoke(model, body.getvalue(), "application/x-npy")


@pytest.mark.parametrize(
    ("method", "path", "reason"),
    [
        ("GET", "/v1/models/sum:predict", "Malformed request: GET /v1/models/sum:predict"),
        ("POST", "/v1/models/sum", "Malformed request"),
        ("GET", "/v1/models/", "Malformed request"),
        ("GET", "/v1/models/sum/labels/stable", "Malformed request"),
        ("POST", "/v1/models/sum:classify", "classify is not supported: use :predict"),
    ],
)
def test_unsupported_rest_requests_get_status_400(model: TensorFlowModel, method: str, path: str, reason: str) -> None:
    status, content = call_rest_api(model, method, path, "{}")
    assert status == 400
    assert reason in content["error"]


ROW_RESPONSE = '{"predictions":[[60.0]]}'
INVOCATIONS = [
    ('{"instances": [[1, 2, 3]]}', "application/json", "", ROW_RESPONSE),
    ("[[1, 2, 3]]", "", "*/*", ROW_RESPONSE),
    ("[1, 2, 3]", "application/json", "", ROW_RESPONSE),
    ('{"x": [1, 2, 3]}', "application/json", "application/json", ROW_RESPONSE),
    ("1,2,3\n", "text/csv", "", ROW_RESPONSE),
    ("1,2,3\n4,5,6\n", "text/csv; charset=utf-8", "text/csv", "60.0\n150.0\n"),
    ("[1, 2, 3]\n\n[0, 0, 1]\n", "application/jsonlines", "application/x-jsonlines", "[60.0]\n[10.0]\n"),
]


@pytest.mark.parametrize(("body", "content_type", "accept", "expected"), INVOCATIONS)
def test_invocations_convert_formats(
    model: TensorFlowModel, body: str, content_type: str, accept: str, expected: str
) -> None:
    response = invoke(model, body, content_type, accept)
    assert (response.status, response.body.decode()) == (200, expected)
    assert dict(response.headers)["content-type"] == (
        accept if "/" in accept and "*" not in accept else "application/json"
    )


@pytest.mark.parametrize(
    ("body", "values"),
    [
        ("9007199254740993\n-9007199254740993\n\n", b"9007199254740993,-9007199254740993"),
        ("9223372036854775807", b"9223372036854775807"),
        ("1.0\n2e3\n", b"1,2000"),
    ],
)
def test_csv_for_an_input_of_integers_keeps_each_value(model: TensorFlowModel, body: str, values: bytes) -> None:
    response = invoke(model, body, "text/csv", attributes="signature_name=long")
    assert response.body == b'{"predictions":[' + values + b"]}"


@pytest.mark.parametrize(
    ("signature", "body", "values"),
    [
        ("bfloat16", "1.5\n70001\nnan", "[1.5, 70144.0, NaN]"),
        ("float8", "1.5\n-3", "[1.5,-3.0]"),
        ("int4", "7\n-8", "[7,-8]"),
    ],
)
def test_types_that_numpy_lacks_are_read_and_written(
    model: TensorFlowModel, signature: str, body: str, values: str
) -> None:
    attributes = f"signature_name={signature}"
    response = invoke(model, body, "text/csv", attributes=attributes)
    assert response.body.decode().replace(": ", ":") == f'{{"predictions":{values}}}'


def test_value_out_of_the_range_of_int4_gets_status_400(model: TensorFlowModel) -> None:
    body = '{"signature_name": "int4", "inputs": [8]}'
    status, content = call_rest_api(model, "POST", "/v1/models/sum:predict", body)
    assert (status, content["error"]) == (400, "input 'value' is [8]: a number is out of the range of int4")


def test_complex_output_causes_status_500() -> None:
    with pytest.raises(HttpError, match="output 'z' has the type complex128, which responses cannot contain") as caught:
        widen_outputs({"z": np.array([1j])})
    assert caught.value.status == 500


def test_text_in_csv_may_be_long(model: TensorFlowModel) -> None:
    response = invoke(model, "x" * 200_000, "text/csv", attributes="signature_name=text")
    assert len(json.loads(response.body)["predictions"][0]) == 200_000


def test_npy_is_answered_with_npy(model: TensorFlowModel) -> None:
    body = io.BytesIO()
    np.save(body, np.array([[1, 2, 3]], np.float64))
    response = invoke(model, body.getvalue(), "application/x-npy")
    assert response.headers == [("content-type", "application/x-npy")]
    np.testing.assert_array_equal(np.load(io.BytesIO(response.body)), np.array([[60]], np.float32))


def test_attributes_choose_model_version_and_signature(model: TensorFlowModel) -> None:
    body = '{"instances": [[1, 0, 0]]}'
    assert invoke(model, body, attributes="tfs-model-name=other").body == b'{"predictions":[[100.0]]}'
    assert invoke(model, body, attributes="tfs-model-version=2,tfs-method=predict").body == b'{"predictions":[[2.0]]}'
    with pytest.raises(HttpError, match="output 'total' has shape"):  # each CSV row is one integer
        invoke(model, "1\n2\n", "text/csv", attributes="signature_name=total")


ERRORS = {
    ("1,2", "text/csv", "", ""): (400, "input 'x' has shape (1, 2)"),
    ("a,b,c", "text/csv", "", ""): (400, "send no header line"),
    ("1", "text/plain", "", ""): (415, "Content-Type 'text/plain' is not supported"),
    ("[[1, 2, 3]]", "", "image/png", ""): (406, "Accept 'image/png' is not supported"),
    (make_words_body('{"count": 1, "word": "a"}'), "", "text/csv", ""): (
        406,
        "text/csv can contain only one numeric output",
    ),
    ("1,a", "text/csv", "", "signature_name=words"): (
        400,
        "the signature has the inputs count, word: send them by name",
    ),
    ("[[1, 2, 3]]", "", "", "tfs-method=classify"): (400, "tfs-method 'classify' is not supported"),
    ("[[1, 2, 3]]", "", "", "tfs-model-version=new"): (400, "tfs-model-version 'new' is not a number"),
    ("[[1, 2, 3]]", "", "", f"tfs-model-version={'1' * 19}"): (400, "is not a number of at most 18 digits"),
    ("é".encode("latin-1"), "text/csv", "", "signature_name=text"): (400, "the body is not CSV: 'utf-8' codec"),
    ("1e300", "text/csv", "", "signature_name=long"): (400, "row 0 has '1e300': the signature expects integers"),
    ("1\ninf", "text/csv", "", "signature_name=long"): (400, "row 1 has 'inf'"),
    ("nan", "text/csv", "", "signature_name=long"): (400, "row 0 has 'nan'"),
    ("1.5", "text/csv", "", "signature_name=long"): (400, "row 0 has '1.5'"),
    ("9223372036854775808", "text/csv", "", "signature_name=long"): (400, "a number is out of the range of int64"),
    ("[[1, 2, 3]]", "", "", "tfs-model-name=none"): (404, "Servable not found"),
}
"""The status and a part of the error message, by body, Content-Type, Accept and custom attributes."""


@pytest.mark.parametrize(("request_parts", "expected"), ERRORS.items())
def test_errors_name_the_value_and_the_remedy(
    model: TensorFlowModel, request_parts: tuple[str | bytes, str, str, str], expected: tuple[int, str]
) -> None:
    with pytest.raises(HttpError) as caught:
        invoke(model, *request_parts)
    assert caught.value.status == expected[0]
    assert expected[1] in str(caught.value)
