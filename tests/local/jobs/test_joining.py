"""DataProcessing of transform jobs: filters, and inputs joined with what the model answered."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.transform.joining import DataProcessing, RecordError
from tests.local.jobs.conftest import ServerParts, transform_request
from tests.local.jobs.fakes import Asked, Model, Reply

CSV = {"ContentType": "text/csv", "Accept": "text/csv", "SplitType": "Line", "AssembleWith": "Line"}
LINES = {**CSV, "ContentType": "application/jsonlines", "Accept": "application/jsonlines"}
WHOLE = {"ContentType": "application/json", "Accept": "application/json"}


def processing(given: Mapping[str, Any], join: bool = True, **filters: Any) -> DataProcessing:
    wanted = {**filters, "JoinSource": "Input" if join else "None"}
    found = DataProcessing.of(transform_request(**given, DataProcessing=wanted))
    assert found is not None
    return found


def count(asked: Asked) -> Reply:
    """A model that says how many columns each row has."""
    return Reply(b"".join(b"%d\n" % len(line.split(b",")) for line in asked.body.splitlines()))


def test_identifier_is_kept_from_the_model_and_joined_again(parts: ServerParts, model: Model) -> None:
    model.invoke = count
    parts.put("in/a.csv", b"id-1,2,3\nid-2,5,6\n")
    wanted = {"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"}
    assert parts.transform(**CSV, DataProcessing=wanted)["TransformJobStatus"] == "Completed"
    assert [asked.body for asked in model.asked] == [b"2,3\n5,6\n"]
    assert parts.outputs() == {"a.csv.out": b"id-1,2\nid-2,2\n"}


@pytest.mark.parametrize("size", [200_000, 5_000_000])
def test_field_may_be_as_large_as_a_request(size: int, parts: ServerParts, model: Model) -> None:
    model.invoke = lambda asked: Reply(b"".join(b"%d\n" % len(line) for line in asked.body.splitlines()))
    text = "word " * (size // 5)
    parts.put("in/a.csv", f'id-1,"{text}, end"\nid-2,short\n'.encode())
    wanted = {"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"}
    job = parts.transform(**CSV, DataProcessing=wanted, MaxPayloadInMB=6)
    assert job["TransformJobStatus"] == "Completed", job
    assert parts.outputs() == {"a.csv.out": b"id-1,%d\nid-2,5\n" % (size + 7)}


def test_byte_order_mark_is_no_part_of_the_first_field() -> None:
    selected = processing(CSV, InputFilter="$[0]", OutputFilter="$[0,-1]")
    marked = '\ufeff"Doe, J",1\n"Roe, R",2\n'.encode()
    assert selected.filter_input(marked) == b'"Doe, J"\n"Roe, R"\n'
    assert selected.filter_output(marked, b"7\n8\n") == b'"Doe, J",7\n"Roe, R",8\n'


@pytest.mark.parametrize(
    ("given", "record", "reason"),
    [
        (CSV, b'1,"two\nlines"\n', "quoted line ends divide records too"),
        (CSV, b'1,"two\r\nlines"\r\n', "quoted line ends divide records too"),
        (CSV, b'1,"open\n2,b\n', "a quote is not closed on its line"),
        (CSV, "1,caf\u00e9\n".encode("latin-1"), "codec can't decode"),
        (LINES, b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}\n", "it is nested too deeply"),
    ],
)
def test_record_that_cannot_be_read_is_refused_with_its_reason(
    given: Mapping[str, Any], record: bytes, reason: str
) -> None:
    with pytest.raises(RecordError, match=reason):
        processing(given, InputFilter="$[1]" if given is CSV else "$.x").filter_input(record)


def test_single_records_are_joined_in_their_order(parts: ServerParts, model: Model) -> None:
    model.invoke = lambda asked: Reply(json.dumps({"sum": sum(json.loads(asked.body))}).encode())
    parts.put("in/a.jsonl", b"".join(b'{"id": %d, "x": [%d, 1]}\n' % (number, number) for number in range(20)))
    wanted = {"InputFilter": "$.x", "JoinSource": "Input", "OutputFilter": "$['id','SageMakerOutput']"}
    parts.transform(**LINES, BatchStrategy="SingleRecord", MaxConcurrentTransforms=4, DataProcessing=wanted)
    lines = [json.loads(line) for line in parts.outputs()["a.jsonl.out"].splitlines()]
    assert lines == [{"id": number, "SageMakerOutput": {"sum": number + 1}} for number in range(20)]


def test_record_without_what_is_selected_fails_its_object_alone(parts: ServerParts, model: Model) -> None:
    parts.put("in/a.csv", b"1\n")
    parts.put("in/b.csv", b"1,2,3\n")
    job = parts.transform(**CSV, DataProcessing={"InputFilter": "$[0,2]"})
    assert job["FailureReason"] == ("ClientError: s3://bucket/in/a.csv: InputFilter $[0,2]: 1 items have no index 2")
    assert parts.outputs() == {"b.csv.out": b"1,3\n"}
    assert len(model.asked) == 1


def test_answers_that_are_too_few_fail_the_object(parts: ServerParts, model: Model) -> None:
    model.invoke = lambda _: Reply(b"1\n")
    parts.put("in/a.csv", b"1\n2\n")
    reason = parts.transform(**CSV, DataProcessing={"JoinSource": "Input"})["FailureReason"]
    assert "the model answered 1 records to 2, and JoinSource Input needs one for each" in reason
    assert parts.outputs() == {}


@pytest.mark.parametrize(
    ("body", "answer", "kept"),
    [
        (b"1,2,3\n", b"1", b"1,2,3,1\n"),
        (b'1,"a, b"\r\n2,c', b"0.5,x\n0.6,y\n", b'1,"a, b",0.5,x\n2,c,0.6,y\n'),
        (b"1\n\n2\n", b"3\n4\n\n", b"1,3\n2,4\n"),
    ],
)
def test_rows_get_the_answers_columns(body: bytes, answer: bytes, kept: bytes) -> None:
    assert processing(CSV).filter_output(body, answer) == kept


def test_quoted_columns_are_single_columns() -> None:
    chosen = processing(CSV, OutputFilter="$[1,-1]")
    assert chosen.filter_output(b'1,"a, ""b""",3\n', b"9\n") == b'"a, ""b""",9\n'


@pytest.mark.parametrize(
    ("body", "answer", "kept"),
    [
        (b'{"key": 1}', b'{"label": 1}', {"key": 1, "SageMakerOutput": {"label": 1}}),
        (b"[1, 2]", b"[0.5]", {"SageMakerInput": [1, 2], "SageMakerOutput": [0.5]}),
        (b'"text"', b"1", {"SageMakerInput": "text", "SageMakerOutput": 1}),
        (b'{"SageMakerOutput": 0}', b"1", {"SageMakerOutput": 1}),
        (b'{\n "key": 1\n}', b'{\n "label": 1\n}\n', {"key": 1, "SageMakerOutput": {"label": 1}}),
    ],
)
def test_documents_are_joined_into_objects(body: bytes, answer: bytes, kept: Any) -> None:
    assert json.loads(processing(WHOLE).filter_output(body, answer)) == kept


def test_lines_are_joined_one_by_one() -> None:
    kept = processing(LINES).filter_output(b'{"a":1}\n[2]\n', b"3\n4\n")
    assert kept == b'{"a":1,"SageMakerOutput":3}\n{"SageMakerInput":[2],"SageMakerOutput":4}\n'


def test_single_lines_answer_may_have_several_lines() -> None:
    assert processing(LINES).filter_output(b'{"a":1}\n', b'{\n"b": 2\n}\n') == b'{"a":1,"SageMakerOutput":{"b":2}}\n'


def test_output_filter_takes_predictions_alone_without_a_join() -> None:
    chosen = processing({**CSV, "Accept": "application/jsonlines"}, join=False, OutputFilter="$.label")
    assert chosen.filter_output(b"1,2\n", '{"label":"ä","score":1}\n'.encode()) == '"ä"\n'.encode()


def test_input_filter_needs_no_accept() -> None:
    chosen = processing({"ContentType": "text/csv", "SplitType": "Line"}, join=False, InputFilter="$[:-1]")
    assert chosen.filter_input(b"1,2,3\n4,5,6\n") == b"1,2\n4,5\n"
    assert chosen.filter_output(b"1,2,3\n", b"any\x00thing") == b"any\x00thing"


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_an_error(body: bytes) -> None:
    with pytest.raises(RecordError, match="is not application/json"):
        processing(WHOLE, InputFilter="$.a").filter_input(body)


def test_filter_that_leaves_no_column_is_an_error() -> None:
    with pytest.raises(RecordError, match="selects no column"):
        processing(CSV, InputFilter="$[3:]").filter_input(b"1,2,3\n")


def test_defaults_are_no_processing() -> None:
    defaults = {"InputFilter": "$", "OutputFilter": "$", "JoinSource": "None"}
    assert DataProcessing.of(transform_request(DataProcessing=defaults)) is None


@pytest.mark.parametrize(
    ("given", "filters", "reason"),
    [
        ({}, {}, "needs TransformInput.ContentType to be one of text/csv, application/json, application/jsonlines"),
        ({**CSV, "ContentType": "image/png"}, {}, "it is image/png"),
        ({**CSV, "Accept": "application/json"}, {}, "needs ContentType and Accept to be the same"),
        ({**CSV, "SplitType": "None"}, {}, "DataProcessing of text/csv needs SplitType Line; it is None"),
        ({**LINES, "AssembleWith": "None"}, {}, "needs SplitType and AssembleWith to be the same"),
        (CSV, {"OutputFilter": "$.id"}, 'Unexpected "." in JsonPath'),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, str], filters: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        processing(given, **filters)


@pytest.mark.usefixtures("model")
def test_filters_are_checked_before_anything_runs(parts: ServerParts) -> None:
    parts.put("in/a", b"a")
    with pytest.raises(ValidationError, match="Invalid InputFilter"):
        parts.start_transform(**LINES, DataProcessing={"InputFilter": "$.a_b"})
    with pytest.raises(ValidationError, match="MaxPayloadInMB 0"):
        parts.start_transform(**WHOLE, MaxPayloadInMB=0, DataProcessing={"InputFilter": "$.a"})
