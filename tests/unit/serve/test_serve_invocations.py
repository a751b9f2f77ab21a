"""Requests to /invocations and their responses, over HTTP."""

import io
import json
from typing import Any

import numpy as np
import pytest

from tests.unit.serve.conftest import Server

ROWS = np.array([[1, 2, 3], [4, 5, 6.5]], np.float32)
JSON_ROWS = '{"instances": [[1, 2, 3], [4, 5, 6.5]]}'
JSON_LINES = "application/jsonlines"
NPY = "application/x-npy"
RAW_SIGNATURE = "signature_name=raw"


def make_npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


BODIES = {
    "application/json": JSON_ROWS.encode(),
    "text/csv": b"1,2,3\n4,5,6.5\n",
    JSON_LINES: b"[1, 2, 3]\n[4, 5, 6.5]\n",
    NPY: make_npy(ROWS),
}
RESPONSES = {
    "application/json": b'{"predictions":[[6.0],[15.5]]}',
    "text/csv": b"6.0\n15.5\n",
    JSON_LINES: b"[6.0]\n[15.5]\n",
    NPY: make_npy(np.array([[6.0], [15.5]], np.float32)),
}


@pytest.mark.parametrize("response_type", BODIES)
@pytest.mark.parametrize("request_type", BODIES)
def test_each_format_is_answered_in_each_format(server: Server, request_type: str, response_type: str) -> None:
    reply = server.invoke(BODIES[request_type], request_type, Accept=response_type)
    assert (reply.status, reply.headers["content-type"], reply.body) == (200, response_type, RESPONSES[response_type])


@pytest.mark.parametrize("request_type", BODIES)
def test_response_has_the_requests_type_by_default(server: Server, request_type: str) -> None:
    reply = server.invoke(BODIES[request_type], request_type)
    assert (reply.headers["content-type"], reply.body) == (request_type, RESPONSES[request_type])


def test_absent_content_type_is_json(server: Server) -> None:
    assert server.request("POST", "/invocations", JSON_ROWS.encode()).body == RESPONSES["application/json"]


def test_response_to_alias_of_json_lines_has_the_alias(server: Server) -> None:
    assert (
        server.invoke(BODIES[JSON_LINES], "application/x-jsonlines").headers["content-type"]
        == "application/x-jsonlines"
    )


def test_raw_signature_scales_in_the_model(server: Server) -> None:
    reply = server.invoke('{"signature_name": "raw", "instances": [[3, 4, 7]]}')
    assert reply.json == {"predictions": [[3.0]]}


@pytest.mark.parametrize("request_type", ["text/csv", JSON_LINES, NPY])
def test_custom_attribute_chooses_the_signature(server: Server, request_type: str) -> None:
    reply = server.invoke(
        BODIES[request_type], request_type, Accept="text/csv", X_Amzn_SageMaker_Custom_Attributes=RAW_SIGNATURE
    )
    assert reply.body == b"0.0\n3.875\n"


def test_body_outranks_the_custom_attribute(server: Server) -> None:
    body = '{"signature_name": "serving_default", "instances": [[1, 2, 3]]}'
    assert server.invoke(body, X_Amzn_SageMaker_Custom_Attributes=RAW_SIGNATURE).json == {"predictions": [[6.0]]}


def test_request_with_inputs_gets_a_response_with_outputs(server: Server) -> None:
    assert server.invoke('{"inputs": [[1, 2, 3]]}').json == {"outputs": [[6.0]]}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [('{"instances": [1, 2, 3]}', "application/json"), ("1,2,3", "text/csv"), (make_npy(ROWS[0]), NPY)],
)
def test_flat_list_is_one_row(server: Server, body: bytes | str, content_type: str) -> None:
    assert server.invoke(body, content_type, Accept="text/csv").body == b"6.0\n"


@pytest.mark.parametrize(
    "body", ["[[1, 2, 3]]", "[1, 2, 3]", "\n [[1, 2, 3]]", "[[1, 2, 18446744073709551619e-20], [1, 2, 3]]"]
)
def test_bare_list_is_equivalent_to_instances(server: Server, body: str) -> None:
    """The SDK's JSONSerializer sends bare lists."""
    reply = server.invoke(body)
    assert (reply.status, reply.json["predictions"][-1]) == (200, [6.0])


def test_bare_list_takes_the_signature_of_the_header(server: Server) -> None:
    assert server.invoke("[3, 4, 7]", X_Amzn_SageMaker_Custom_Attributes=RAW_SIGNATURE).json == {"predictions": [[3.0]]}


TEXT_BODIES = {"application/json": JSON_ROWS, "text/csv": "1,2,3\n4,5,6.5\n", JSON_LINES: "[1, 2, 3]\n[4, 5, 6.5]\n"}


@pytest.mark.parametrize("media_type", TEXT_BODIES)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_mark_sets_the_encoding(server: Server, media_type: str, encoding: str) -> None:
    reply = server.invoke(TEXT_BODIES[media_type].encode(encoding), media_type)
    assert (reply.status, reply.body) == (200, RESPONSES[media_type])


@pytest.mark.parametrize("media_type", TEXT_BODIES)
@pytest.mark.parametrize("charset", ["UTF-8", '"utf-8"', "utf-16-be", "iso-8859-1", "windows-1252", "us-ascii"])
def test_charset_sets_the_encoding(server: Server, media_type: str, charset: str) -> None:
    body = TEXT_BODIES[media_type].encode(charset.strip('"'))
    assert server.invoke(body, f"{media_type}; charset={charset}").body == RESPONSES[media_type]


@pytest.mark.parametrize(
    ("charset", "body", "status"),
    [
        ("zip", b"x", 415),
        ("idna", b"x", 415),
        ("nonsense", b"x", 415),
        ("utf-16", b"1,2,", 400),
        ("ascii", b"\xff", 400),
    ],
)
def test_unsupported_or_wrong_charset_is_an_error(server: Server, charset: str, body: bytes, status: int) -> None:
    reply = server.invoke(body, f"text/csv; charset={charset}")
    assert (reply.status, bool(reply.error)) == (status, True)


def test_json_lines_can_be_objects_with_features(server: Server) -> None:
    assert server.invoke('{"features": [1, 2, 3]}\n', JSON_LINES).body == b"[6.0]\n"


def test_predictions_are_the_shortest_text_of_a_float32(server: Server) -> None:
    assert server.invoke("0.1,0.2,0\n1e-20,0,0", "text/csv").body == b"0.3\n1e-20\n"


@pytest.mark.parametrize(
    "body", ["1,2,3\r\n4,5,6.5\r\n", " 1 , 2,3\n4,5,6.5", "+1,2.,3\n4,5,065e-1", '"1","2",3\n4,5,6.5']
)
def test_csv_dialects_are_equivalent(server: Server, body: str) -> None:
    assert server.invoke(body, "text/csv").body == RESPONSES["text/csv"]


@pytest.mark.parametrize(
    "array",
    [ROWS.astype(dtype) for dtype in ("<f8", ">f8", "<f2", ">f4")] + [np.asfortranarray(ROWS)],
    ids=["double", "big-endian", "half", "big-endian-float", "fortran-order"],
)
def test_npy_of_any_real_type_is_read(server: Server, array: Any) -> None:
    assert server.invoke(make_npy(array), NPY).body == RESPONSES[NPY]


def test_npy_integers_are_read(server: Server) -> None:
    assert server.invoke(make_npy(np.array([[1, 2, 3]], np.int64)), NPY, Accept="text/csv").body == b"6.0\n"


MALFORMED_JSON = {
    "": "empty",
    "{": "not JSON",
    "nonsense": "not JSON",
    "[]": "(1, 0)",
    "[[1, 2, 3], [1, 2]]": "row 1 has length 2, but row 0 has length 3",
    "[[1, 2, 3], null]": "row 1 is None",
    "[1, 2]": "(rows, 3)",
    '[["1", "2", "3"]]': "row 0 contains '1'",
    "7": 'send {"instances": [[…], …]} or [[…], …]',
    '"[[1, 2, 3]]"': "the body is '[[1, 2, 3]]'",
    "{}": "nothing",
    '{"rows": [[1, 2, 3]]}': "rows",
    '{"instances": [[1, 2, 3]], "inputs": [[1, 2, 3]]}': "inputs",
    '{"instances": [[1, 2, 3]], "signature": "raw"}': "'signature'",
    '{"instances": [[1, 2, 3]], "signature_name": "other"}': "'other' is unknown",
    '{"instances": [[1, 2, 3]], "signature_name": ["raw"]}': "is unknown",
    '{"instances": []}': "at least one row",
    '{"instances": [[]]}': "(1, 0)",
    '{"instances": 1}': "the rows are 1",
    '{"instances": null}': "row 0 contains None",
    '{"instances": {"x": 1}}': "row 0 contains",
    '{"instances": [{"x": 1}]}': "row 0",
    '{"instances": [[1, 2]]}': "(rows, 3)",
    '{"instances": [1, 2]}': "(rows, 3)",
    '{"instances": [[[1, 2, 3]]]}': "(1, 1, 3)",
    '{"instances": [[1, 2, 3], [1, 2]]}': "row 1 has length 2, but row 0 has length 3",
    '{"instances": [[1, 2, 3], 4]}': "row 1",
    '{"instances": [[1, 2, 3], [1, [2], 3]]}': "row 1",
    '{"instances": [[1, 2, 3], [1, "2", 3]]}': "row 1 contains '2'",
    '{"instances": [["a", "b", "c"]]}': "row 0 contains 'a'",
    '{"instances": [[1, 2, 3], [1, null, 3]]}': "row 1 contains None",
    '{"instances": [[1, 2, 3], [1, true, 3]]}': "row 1 contains True",
    '{"instances": [[true, true, true]]}': "row 0 contains True",
    '{"instances": [[1, NaN, 3]]}': "not JSON",
    '{"instances": [[1, Infinity, 3]]}': "not JSON",
    '{"instances": [[1, 2, 3], [1, 1e39, 3]]}': "row 1 has 1e+39 as feature 1",
    '{"instances": [[1, 1e999, 3]]}': "not JSON",
    '{"instances": [[1, ' + "9" * 400 + ", 3]]}": "not JSON",
    '{"instances": [[1, ' + "9" * 40 + ", 3]]}": "row 0 has 1e+40",
    '{"instances": ' + "[" * 100_000: "not JSON",
    '{"instances": [[1, 2, "\\ud800"]]}': "not JSON",
    '{"signature_name": ' + "[" * 1000 + "]" * 1000 + ', "instances": [[1, 2, 3]]}': "is unknown",
    '{"instances": [["'
    + "x" * 100_000
    + '"'
    + ", 1" * 100_000
    + "]]}": "row 0 contains 'xxx",  # as an array of text, this body would need 40 GB
}


@pytest.mark.parametrize("depth", [60, 65, 200, 1000, 1023, 1025, 100_000])
@pytest.mark.parametrize("pair", ["[]", ('{"a":', "}")], ids=["lists", "objects"])
@pytest.mark.parametrize("media_type", ["application/json", JSON_LINES])
def test_deeply_nested_json_gets_status_400(server: Server, depth: int, pair: tuple[str, str], media_type: str) -> None:
    nested = pair[0] * depth + "1" + pair[1] * depth
    for body in (nested, f"[{nested}]", f'{{"instances": [{nested}]}}'):
        assert server.invoke(body, media_type).status == 400


def test_last_of_two_members_of_the_same_name_is_used(server: Server) -> None:
    assert server.invoke('{"instances": [[9, 9, 9]], "instances": [[1, 2, 3]]}').json == {"predictions": [[6.0]]}


@pytest.mark.parametrize(("body", "reason"), MALFORMED_JSON.items(), ids=lambda text: str(text)[:40])
def test_malformed_json_gets_status_400_with_a_reason(server: Server, body: str, reason: str) -> None:
    reply = server.invoke(body)
    assert (reply.status, reason in reply.error) == (400, True), reply.error


MALFORMED_CSV = {
    "\n": "(rows, 3)",
    "a,b,c\n1,2,3": "row 0 has 'a' in column 0, which is not a number: send no header line",
    "1,2,3\n1,x,3": "row 1 has 'x' in column 1",
    "1,2,3\n1,,3": "row 1 has ''",
    "1,2,3\n1,2": "row 1 has length 2, but row 0 has length 3",
    "1,2,3\n\n1,2,3": "row 1 has length 0",
    "1,2,3\n1,nan,3": "row 1 has nan as feature 1",
    "1,2,-inf": "row 0 has -inf",
    "1,2,true": "'true'",
    "1,2,[3]": "'[3]'",
    "1,2,1_0": "'1_0'",
    "1,2,3,4": "(1, 4)",
    "1 2 3": "'1 2 3'",
    "1;2;3": "separate the values by commas",
    "1\t2\t3": "separate the values by commas",
    '"1,5",2,3': "not a number: write numbers such as 1234.5, without commas",
    '"1,2,3\n1,2,3': "not a number: close each quote",
    "1\0,\0002\0,\0003\0": "not a number: send UTF-8, or name the encoding in Content-Type",
}
MALFORMED_DATA_ROWS = ["1,,3", "1,2,", "1,NA,3", "NA,2,3", "1%,2,3", "nan,x,3", "1_0,2,3"]


@pytest.mark.parametrize("body", MALFORMED_DATA_ROWS)
def test_error_does_not_call_data_a_header(server: Server, body: str) -> None:
    reply = server.invoke(f"{body}\n1,2,3", "text/csv")
    assert (reply.status, "header" in reply.error) == (400, False), reply.error


@pytest.mark.parametrize(("body", "reason"), MALFORMED_CSV.items())
def test_malformed_csv_gets_status_400_with_a_reason(server: Server, body: str, reason: str) -> None:
    reply = server.invoke(body, "text/csv")
    assert (reply.status, reason in reply.error) == (400, True), reply.error


@pytest.mark.parametrize(
    "body", ["[1,2,3]\n[1,2", "1\n2\n3", "[1,2,3]\n{}", "[1,2,3]\n4", "x", "\n\n", "[1,2,3],[1,2,3]\n[1,2]"]
)
def test_malformed_json_lines_get_status_400(server: Server, body: str) -> None:
    reply = server.invoke(body, JSON_LINES)
    assert (reply.status, bool(reply.error)) == (400, True)


def make_npy_with_header(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


MALFORMED_NPY = {
    "no-npy": (b"hello, world", "not a .npy"),
    "magic-only": (b"\x93NUMPY", "not a .npy"),
    "version-3": (b"\x93NUMPY\x03\x00" + bytes(80), "version (3, 0)"),
    "pickle": (make_npy(np.array([[1, "a", None]], object), allow_pickle=True), "object"),
    "text": (make_npy(np.array([["1", "2", "3"]])), "<U1"),
    "complex": (make_npy(ROWS.astype(complex)), "complex"),
    "boolean": (make_npy(ROWS > 2), "bool"),
    "record": (make_npy(np.zeros(3, "f4,f4")), "real numbers"),
    "truncated": (make_npy(ROWS)[:-1], "truncated by 1 bytes"),
    "too-long": (make_npy(ROWS) + b"x", "too long by 1 bytes"),
    "scalar": (make_npy(np.float32(1)), "shape ()"),
    "no-rows": (make_npy(ROWS[:0]), "shape (0, 3)"),
    "three-dimensional": (make_npy(ROWS[None]), "(1, 2, 3)"),
    "wide": (make_npy(np.zeros((2, 4), np.float32)), "(2, 4)"),
    "nan": (make_npy(np.array([[1, 2, 3], [1, np.nan, 3]])), "row 1 has nan as feature 1"),
    "infinity": (make_npy(np.array([[1, 2, np.inf]], np.float16)), "row 0 has inf"),
    "negative-shape": (
        make_npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -3)}", bytes(12)),
        "shape",
    ),
    "huge-shape": (
        make_npy_with_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**30}, 3)}}"),
        "truncated",
    ),
    "code": (make_npy_with_header("__import__('os').abort()"), "not a .npy"),
    "long-header": (make_npy_with_header("{" + " " * 20_000 + "}"), "not a .npy"),
    "deep-header": (make_npy_with_header("(" * 5000), "not a .npy"),
}


@pytest.mark.parametrize("name", MALFORMED_NPY)
def test_malformed_npy_gets_status_400_with_a_reason(server: Server, name: str) -> None:
    body, reason = MALFORMED_NPY[name]
    reply = server.invoke(body, NPY)
    assert (reply.status, reason in reply.error) == (400, True), reply.error


def test_prediction_out_of_range_causes_status_500(server: Server) -> None:
    reply = server.invoke("1,2,3\n3e38,3e38,3e38", "text/csv")
    assert (reply.status, "row 1" in reply.error) == (500, True)


@pytest.mark.parametrize("content_type", ["application/xml", "application/x-www-form-urlencoded", "nonsense"])
def test_unknown_content_type_gets_status_415(server: Server, content_type: str) -> None:
    reply = server.invoke(JSON_ROWS, content_type)
    assert (reply.status, content_type in reply.error) == (415, True)


def test_compressed_body_gets_status_415(server: Server) -> None:
    assert server.invoke(JSON_ROWS, Content_Encoding="gzip").status == 415


def test_content_encoding_identity_is_accepted(server: Server) -> None:
    assert server.invoke(JSON_ROWS, Content_Encoding="identity").status == 200


def test_unacceptable_accept_gets_status_406(server: Server) -> None:
    reply = server.invoke(JSON_ROWS, Accept="image/png")
    assert (reply.status, "image/png" in reply.error) == (406, True)


MAX_BODY_BYTES = 6 * 1024 * 1024


def test_body_at_the_limit_is_read(server: Server) -> None:
    assert server.invoke(JSON_ROWS + " " * (MAX_BODY_BYTES - len(JSON_ROWS))).status == 200


def test_body_above_the_limit_gets_status_413(server: Server) -> None:
    reply = server.invoke(JSON_ROWS + " " * (MAX_BODY_BYTES - len(JSON_ROWS) + 1))
    assert (reply.status, str(MAX_BODY_BYTES) in reply.error) == (413, True)


def test_many_rows_are_predicted_in_order(server: Server) -> None:
    rows = np.random.default_rng(0).normal(size=(5000, 3)).astype(np.float32)
    reply = server.invoke(json.dumps({"instances": rows.tolist()}))
    np.testing.assert_allclose(reply.json["predictions"], rows.sum(axis=1, keepdims=True), atol=1e-5)
