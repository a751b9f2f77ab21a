"""DataProcessing of transform jobs: filters, and inputs joined with the responses of the model."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.transform.joining import DataProcessing, RecordError
from tests.local.jobs.conftest import ServerParts, make_transform_request
from tests.local.jobs.fakes import ImageBehaviour, ReceivedRequest, Reply

CSV = {"ContentType": "text/csv", "Accept": "text/csv", "SplitType": "Line", "AssembleWith": "Line"}
JSON_LINES = {**CSV, "ContentType": "application/jsonlines", "Accept": "application/jsonlines"}
JSON_TYPES = {"ContentType": "application/json", "Accept": "application/json"}


def make_data_processing(formats: Mapping[str, Any], joins_input: bool = True, **filters: Any) -> DataProcessing:
    members = {**filters, "JoinSource": "Input" if joins_input else "None"}
    processing = DataProcessing.read(make_transform_request(**formats, DataProcessing=members))
    assert processing is not None
    return processing


def count_columns(request: ReceivedRequest) -> Reply:
    """Respond with the number of columns of each row."""
    return Reply(b"".join(b"%d\n" % len(line.split(b",")) for line in request.body.splitlines()))


def test_filters_hide_identifier_from_model_and_join_it(parts: ServerParts, model: ImageBehaviour) -> None:
    model.invoke = count_columns
    parts.put("in/a.csv", b"id-1,2,3\nid-2,5,6\n")
    members = {"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"}
    assert parts.transform(**CSV, DataProcessing=members)["TransformJobStatus"] == "Completed"
    assert [request.body for request in model.requests] == [b"2,3\n5,6\n"]
    assert parts.read_outputs() == {"a.csv.out": b"id-1,2\nid-2,2\n"}


@pytest.mark.parametrize("size", [200_000, 5_000_000])
def test_field_can_be_as_large_as_a_request(size: int, parts: ServerParts, model: ImageBehaviour) -> None:
    model.invoke = lambda request: Reply(b"".join(b"%d\n" % len(line) for line in request.body.splitlines()))
    text = "word " * (size // 5)
    parts.put("in/a.csv", f'id-1,"{text}, end"\nid-2,short\n'.encode())
    members = {"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"}
    job = parts.transform(**CSV, DataProcessing=members, MaxPayloadInMB=6)
    assert job["TransformJobStatus"] == "Completed", job
    assert parts.read_outputs() == {"a.csv.out": b"id-1,%d\nid-2,5\n" % (size + 7)}


def test_byte_order_mark_is_removed() -> None:
    processing = make_data_processing(CSV, InputFilter="$[0]", OutputFilter="$[0,-1]")
    content_with_mark = '\ufeff"Doe, J",1\n"Roe, R",2\n'.encode()
    assert processing.filter_input(content_with_mark) == b'"Doe, J"\n"Roe, R"\n'
    assert processing.filter_output(content_with_mark, b"7\n8\n") == b'"Doe, J",7\n"Roe, R",8\n'


@pytest.mark.parametrize(
    ("formats", "record", "reason"),
    [
        (CSV, b'1,"two\nlines"\n', "a line break ends a record even inside quotes"),
        (CSV, b'1,"two\r\nlines"\r\n', "a line break ends a record even inside quotes"),
        (CSV, b'1,"open\n2,b\n', "a quoted field does not end on its line"),
        (CSV, "1,caf\u00e9\n".encode("latin-1"), "codec can't decode"),
        (JSON_LINES, b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}\n", "it is nested too deeply"),
    ],
)
def test_malformed_record_raises_with_reason(formats: Mapping[str, Any], record: bytes, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        make_data_processing(formats, InputFilter="$[1]" if formats is CSV else "$.x").filter_input(record)


def test_single_records_are_joined_in_order(parts: ServerParts, model: ImageBehaviour) -> None:
    model.invoke = lambda request: Reply(json.dumps({"sum": sum(json.loads(request.body))}).encode())
    parts.put("in/a.jsonl", b"".join(b'{"id": %d, "x": [%d, 1]}\n' % (number, number) for number in range(20)))
    members = {"InputFilter": "$.x", "JoinSource": "Input", "OutputFilter": "$['id','SageMakerOutput']"}
    parts.transform(**JSON_LINES, BatchStrategy="SingleRecord", MaxConcurrentTransforms=4, DataProcessing=members)
    lines = [json.loads(line) for line in parts.read_outputs()["a.jsonl.out"].splitlines()]
    assert lines == [{"id": number, "SageMakerOutput": {"sum": number + 1}} for number in range(20)]


def test_record_without_selected_column_fails_only_its_object(parts: ServerParts, model: ImageBehaviour) -> None:
    parts.put("in/a.csv", b"1\n")
    parts.put("in/b.csv", b"1,2,3\n")
    job = parts.transform(**CSV, DataProcessing={"InputFilter": "$[0,2]"})
    assert job["FailureReason"] == (
        "ClientError: s3://bucket/in/a.csv: InputFilter $[0,2]: an array of 1 items has no index 2"
    )
    assert parts.read_outputs() == {"b.csv.out": b"1,3\n"}
    assert len(model.requests) == 1


def test_missing_predictions_fail_the_object(parts: ServerParts, model: ImageBehaviour) -> None:
    model.invoke = lambda _: Reply(b"1\n")
    parts.put("in/a.csv", b"1\n2\n")
    reason = parts.transform(**CSV, DataProcessing={"JoinSource": "Input"})["FailureReason"]
    assert "the model returned 1 records for 2 input records: JoinSource Input requires one per input record" in reason
    assert parts.read_outputs() == {}


@pytest.mark.parametrize(
    ("body", "response", "output"),
    [
        (b"1,2,3\n", b"1", b"1,2,3,1\n"),
        (b'1,"a, b"\r\n2,c', b"0.5,x\n0.6,y\n", b'1,"a, b",0.5,x\n2,c,0.6,y\n'),
        (b"1\n\n2\n", b"3\n4\n\n", b"1,3\n2,4\n"),
    ],
)
def test_rows_are_joined_with_prediction_columns(body: bytes, response: bytes, output: bytes) -> None:
    assert make_data_processing(CSV).filter_output(body, response) == output


def test_output_filter_counts_quoted_column_as_one() -> None:
    processing = make_data_processing(CSV, OutputFilter="$[1,-1]")
    assert processing.filter_output(b'1,"a, ""b""",3\n', b"9\n") == b'"a, ""b""",9\n'


@pytest.mark.parametrize(
    ("body", "response", "output"),
    [
        (b'{"key": 1}', b'{"label": 1}', {"key": 1, "SageMakerOutput": {"label": 1}}),
        (b"[1, 2]", b"[0.5]", {"SageMakerInput": [1, 2], "SageMakerOutput": [0.5]}),
        (b'"text"', b"1", {"SageMakerInput": "text", "SageMakerOutput": 1}),
        (b'{"SageMakerOutput": 0}', b"1", {"SageMakerOutput": 1}),
        (b'{\n "key": 1\n}', b'{\n "label": 1\n}\n', {"key": 1, "SageMakerOutput": {"label": 1}}),
    ],
)
def test_documents_are_joined_into_objects(body: bytes, response: bytes, output: Any) -> None:
    assert json.loads(make_data_processing(JSON_TYPES).filter_output(body, response)) == output


def test_each_line_is_joined() -> None:
    output = make_data_processing(JSON_LINES).filter_output(b'{"a":1}\n[2]\n', b"3\n4\n")
    assert output == b'{"a":1,"SageMakerOutput":3}\n{"SageMakerInput":[2],"SageMakerOutput":4}\n'


def test_prediction_of_single_record_can_have_several_lines() -> None:
    assert (
        make_data_processing(JSON_LINES).filter_output(b'{"a":1}\n', b'{\n"b": 2\n}\n')
        == b'{"a":1,"SageMakerOutput":{"b":2}}\n'
    )


def test_output_filter_selects_from_predictions_without_join() -> None:
    processing = make_data_processing(
        {**CSV, "Accept": "application/jsonlines"}, joins_input=False, OutputFilter="$.label"
    )
    assert processing.filter_output(b"1,2\n", '{"label":"ä","score":1}\n'.encode()) == '"ä"\n'.encode()


def test_input_filter_needs_no_accept() -> None:
    processing = make_data_processing(
        {"ContentType": "text/csv", "SplitType": "Line"}, joins_input=False, InputFilter="$[:-1]"
    )
    assert processing.filter_input(b"1,2,3\n4,5,6\n") == b"1,2\n4,5\n"
    assert processing.filter_output(b"1,2,3\n", b"any\x00thing") == b"any\x00thing"


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000])
def test_invalid_json_raises(body: bytes) -> None:
    with pytest.raises(RecordError, match="is not application/json"):
        make_data_processing(JSON_TYPES, InputFilter="$.a").filter_input(body)


def test_filter_without_columns_raises() -> None:
    with pytest.raises(RecordError, match="selects no column"):
        make_data_processing(CSV, InputFilter="$[3:]").filter_input(b"1,2,3\n")


def test_default_members_need_no_processing() -> None:
    defaults = {"InputFilter": "$", "OutputFilter": "$", "JoinSource": "None"}
    assert DataProcessing.read(make_transform_request(DataProcessing=defaults)) is None


@pytest.mark.parametrize(
    ("formats", "filters", "reason"),
    [
        ({}, {}, "needs TransformInput.ContentType to be one of text/csv, application/json, application/jsonlines"),
        ({**CSV, "ContentType": "image/png"}, {}, "it is image/png"),
        ({**CSV, "Accept": "application/json"}, {}, "needs ContentType and Accept to be the same"),
        ({**CSV, "SplitType": "None"}, {}, "DataProcessing of text/csv needs SplitType Line; it is None"),
        ({**JSON_LINES, "AssembleWith": "None"}, {}, "needs SplitType and AssembleWith to be the same"),
        (CSV, {"OutputFilter": "$.id"}, 'Unexpected "." in JsonPath'),
    ],
)
def test_unsupported_formats_and_filters_are_refused(
    formats: dict[str, str], filters: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        make_data_processing(formats, **filters)


@pytest.mark.usefixtures("model")
def test_create_refuses_invalid_data_processing(parts: ServerParts) -> None:
    parts.put("in/a", b"a")
    with pytest.raises(ValidationError, match="Invalid InputFilter"):
        parts.start_transform(**JSON_LINES, DataProcessing={"InputFilter": "$.a_b"})
    with pytest.raises(ValidationError, match="MaxPayloadInMB 0"):
        parts.start_transform(**JSON_TYPES, MaxPayloadInMB=0, DataProcessing={"InputFilter": "$.a"})
