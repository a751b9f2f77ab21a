"""Signature `raw` of a model whose training data were tables: rows with named columns, in all formats."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from microjobs.columns import CategoricalColumn, FittedColumns, NumericColumn
from tests.bundles import write_linear_bundle

from .conftest import Server, run_server

COLUMNS = FittedColumns(
    (
        NumericColumn("age", mean=40.0, scale=10.0, fill=50.0),
        NumericColumn("rooms", mean=0.0, scale=1.0),
        CategoricalColumn("city", "one-hot", ("Bonn", "Köln"), unknown=0.0),
        CategoricalColumn("grade", "ordinal", ("1", "2", "true"), fill="2"),
    ),
    ignored=("id", "price"),
)
WEIGHTS = [1.0, 10.0, 100.0, 200.0, 1000.0]
RAW_SIGNATURE = "signature_name=raw"
ROW = '{"age": 60, "rooms": 3, "city": "Köln", "grade": "1"}'
PREDICTION = 2.0 + 30.0 + 200.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root: Path = tmp_path_factory.mktemp("serve")
    write_linear_bundle(root / "model", WEIGHTS, 0.0, columns=COLUMNS)
    with run_server(root) as server:
        server.wait_until_ready()
        yield server


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (ROW, PREDICTION),
        ('{"age": null, "rooms": 3, "city": "Köln", "grade": null}', 1 + 30 + 200 + 1000),
        ('{"age": 40, "rooms": 0.5, "city": "Rome", "grade": 2}', 5 + 1000),
        ('{"age": 40, "rooms": true, "city": "Bonn", "grade": true}', 10 + 100 + 2000),
        ('{"age": 40, "rooms": 0, "city": "Bonn", "grade": 1.0}', 100),
        ('{"grade": "1", "city": "Bonn", "rooms": 0, "age": 40, "id": "x", "price": null}', 100),
    ],
)
def test_row_becomes_features(row: str, expected: float, server: Server) -> None:
    reply = server.invoke(f'{{"signature_name": "raw", "instances": [{row}, {ROW}]}}')
    assert reply.json == {"predictions": [[expected], [PREDICTION]]}


def test_rows_may_be_a_bare_list(server: Server) -> None:
    reply = server.invoke(f"[{ROW}]", X_Amzn_SageMaker_Custom_Attributes=RAW_SIGNATURE)
    assert reply.json == {"predictions": [[PREDICTION]]}


def test_columns_may_be_lists(server: Server) -> None:
    columns = '{"age": [60, 40], "rooms": [3, 0], "city": ["Köln", "Bonn"], "grade": ["1", "1"]}'
    reply = server.invoke(f'{{"signature_name": "raw", "inputs": {columns}}}')
    assert reply.json == {"outputs": [[PREDICTION], [100.0]]}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (f"{ROW}\n\n{ROW}\n", "application/jsonlines"),
        ('city,age,rooms,grade,id\r\nKöln,60,3,1,x\r\n\r\n"Köln",6e1,3,1,\r\n', "text/csv"),
        ("age,rooms,city,grade\n60,3,Köln,1\n60,3,Köln,1".encode("utf-16"), "text/csv; charset=utf-16"),
    ],
    ids=["json-lines", "csv", "utf-16"],
)
def test_rows_of_other_formats_become_features(body: str | bytes, content_type: str, server: Server) -> None:
    reply = server.invoke(body, content_type, X_Amzn_SageMaker_Custom_Attributes=RAW_SIGNATURE, Accept="text/csv")
    assert reply.body == b"232.0\n232.0\n"


def test_missing_fields_of_csv_are_replaced(server: Server) -> None:
    body = "age,rooms,city,grade\n,3,Köln,NA\n"
    assert server.invoke(body, "text/csv", X_Amzn_SageMaker_Custom_Attributes=RAW_SIGNATURE).body == b"1231.0\n"


def test_default_signature_takes_features(server: Server) -> None:
    assert server.invoke('{"instances": [[2, 3, 0, 1, 0]]}').json == {"predictions": [[PREDICTION]]}


REMEDY = "send the columns age, rooms, city, grade"
JSON_ERRORS = {
    "[[60, 3, 0, 1]]": "row 0 is [60, 3, 0, 1]: send an object with the columns age, rooms, city, grade",
    f"[{ROW}, 7]": "row 1 is 7: send an object with the columns",
    "[]": "the rows are []: send one object per row, with the columns age",
    '"x"': "the rows are 'x': send one object per row",
    "{}": f"the object has no column 'age': {REMEDY}",
    '[{"age": 1}]': f"row 0 has no column 'rooms': {REMEDY}",
    f'[{ROW[:-1]}, "x": 1}}]': f"row 0 has the column 'x': {REMEDY}",
    '[{"age": "old", "rooms": 3, "city": "Köln", "grade": "1"}]': "row 0: column 'age' contains 'old': send a number",
    '[{"age": [1], "rooms": 3, "city": "Köln", "grade": "1"}]': "row 0: column 'age' contains [1]: send a number",
    f'[{ROW}, {{"age": 1, "rooms": null, "city": "Köln", "grade": "1"}}]': "row 1: column 'rooms' is missing",
    '[{"age": 1, "rooms": 3, "city": null, "grade": "1"}]': "row 0: column 'city' is missing",
    '[{"age": 1, "rooms": 3, "city": "Köln", "grade": "9"}]': "row 0: column 'grade' contains '9', which is not one of",
    '[{"age": 1, "rooms": 3, "city": "Köln", "grade": ["1"]}]': "row 0: column 'grade' contains ['1'], which is not",
    '[{"age": 1e300, "rooms": 3, "city": "Köln", "grade": "1"}]': "row 0 has 1e+299 as feature 0",
    '{"age": 1, "rooms": [3], "city": ["Köln"], "grade": ["1"]}': "column 'age' is 1: send a list",
    '{"age": [1, 2], "rooms": [3], "city": ["Köln"], "grade": ["1"]}': "the columns have 1 to 2 values: send the same",
}
CSV_ERRORS = {
    "60,3,Köln,1\n": f"the header has no column 'age': {REMEDY}",
    "age,rooms,city,grade\n": "the body has a header and no rows",
    "age,rooms,city,grade,age\n1,2,Bonn,1,1\n": "the header has 2 columns 'age'",
    "age,rooms,city,grade\n1,2,Bonn\n": "row 0 has 3 fields but the header has 4",
    "age,rooms,city,grade\n1,x,Bonn,1\n": "row 0: column 'rooms' contains 'x': send a number",
    "age,rooms,city,grade\n1,inf,Bonn,1\n": "row 0: column 'rooms' contains 'inf', which is infinite",
    "\n": "the header has no column 'age'",
}
"""Parts of error messages, by body. The keys of JSON_ERRORS are only the rows of a body."""


@pytest.mark.parametrize("rows", JSON_ERRORS)
def test_invalid_rows_get_status_400(rows: str, server: Server) -> None:
    reply = server.invoke(f'{{"signature_name": "raw", "instances": {rows}}}')
    assert reply.status == 400
    assert JSON_ERRORS[rows] in reply.error


@pytest.mark.parametrize("body", CSV_ERRORS)
def test_invalid_csv_gets_status_400(body: str, server: Server) -> None:
    reply = server.invoke(body, "text/csv", X_Amzn_SageMaker_Custom_Attributes=RAW_SIGNATURE)
    assert reply.status == 400
    assert CSV_ERRORS[body] in reply.error


def test_arrays_without_names_get_status_400(server: Server) -> None:
    reply = server.invoke(b"x", "application/x-npy", X_Amzn_SageMaker_Custom_Attributes=RAW_SIGNATURE)
    assert reply.status == 400
    assert "application/x-npy has no names of columns" in reply.error
