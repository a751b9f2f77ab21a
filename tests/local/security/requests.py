"""Strategies for valid, nearly valid and damaged requests. All of them have a valid signature."""

import base64
import copy
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from botocore.serialize import create_serializer
from hypothesis import strategies as st

from microjobs_orchestrator.local.protocols.models import load_operation_model, load_service_model
from tests.local.security.shapes import NESTED_LISTS_PLACEHOLDER, unusual_texts, valid_values, wrong_values

JSON = "application/x-amz-json-1.1"
NAMES = st.sampled_from(["a", "b", "A", "a-b", "absent", "x" * 63]) | st.integers(0, 60).map("n{}".format)


@dataclass(frozen=True)
class Request:
    service: str
    """The name of the service in the signature."""
    operation: OperationModel
    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Draw = Callable[[st.SearchStrategy[Any]], Any]

# --- members ---


def members(operation: OperationModel, members_by_operation: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for the members of a request, with or without errors.

    The members are generated from botocore's model, or from the operation's entry in `members_by_operation`.

    Args:
        members_by_operation: valid members that the server accepts.
    """
    shape = operation.input_shape
    if shape is None:
        return st.just({}) | wrong_values
    sources = [valid_values(shape)]
    if operation.name in members_by_operation:
        sources += [_replace_name(members_by_operation[operation.name], operation)] * 4
    valid_members = st.one_of(*sources)
    broken_members = _add_errors(valid_members, shape)
    return valid_members | valid_members | broken_members | broken_members | wrong_values


def _replace_name(request_members: Mapping[str, Any], operation: OperationModel) -> st.SearchStrategy[Any]:
    """Return a strategy for these members with various names of the resource, if the operation has such a name."""
    noun = re.sub("^[A-Z][a-z]+", "", operation.name)
    name = next((member for member in (f"{noun}Name", "PipelineName") if member in get_member_shapes(operation)), None)
    return NAMES.map(lambda value: {**copy.deepcopy(request_members), **({name: value} if name else {})})


def get_member_shapes(operation: OperationModel) -> Mapping[str, Shape]:
    return dict(operation.input_shape.members) if operation.input_shape else {}


@st.composite
def _add_errors(draw: Draw, valid_members: st.SearchStrategy[Any], shape: Shape) -> Any:
    """Change one to three values in valid members."""
    value = copy.deepcopy(draw(valid_members))
    for _ in range(draw(st.integers(1, 3))):
        holder, key, key_shape = _choose_place(draw, value, shape)
        match draw(st.sampled_from(["remove", "wrong_values", "wrong_values", "text", "valid_values", "unknown"])):
            case "remove" if isinstance(holder, dict):
                holder.pop(key, None)
            case "valid_values" if key_shape is not None:
                holder[key] = draw(valid_values(key_shape, 2))
            case "unknown" if isinstance(holder, dict):
                holder[draw(unusual_texts)] = draw(wrong_values)
            case "text":
                holder[key] = draw(unusual_texts)
            case _:
                holder[key] = draw(wrong_values)
    return value


def _choose_place(draw: Draw, value: Any, shape: Shape | None) -> tuple[Any, Any, Shape | None]:
    """Return a dict or list in a value, one of its keys, and the shape of the value at this key."""
    holder, key, key_shape = {"": value}, "", shape
    for _ in range(draw(st.integers(1, 6))):
        inner = holder[key]
        if isinstance(inner, dict) and (inner or isinstance(key_shape, StructureShape)):
            known_names = list(key_shape.members) if isinstance(key_shape, StructureShape) else []
            chosen_name = draw(st.sampled_from([*inner, *inner, *known_names]))
            holder, key, key_shape = inner, chosen_name, _get_member(key_shape, chosen_name)
            if key not in holder:
                break
        elif isinstance(inner, list) and inner:
            holder, key = inner, draw(st.integers(0, len(inner) - 1))  # type: ignore[assignment]
            key_shape = key_shape.member if isinstance(key_shape, ListShape) else None
        else:
            break
    # If no key was chosen, `holder` is the wrapper of the first line, and a change of the wrapper would not change
    # `value`. Therefore, the place is then the member of `value` with an empty name.
    return (value, key, key_shape) if key == "" and isinstance(value, dict) else (holder, key, key_shape)


def _get_member(shape: Shape | None, name: str) -> Shape | None:
    if isinstance(shape, StructureShape):
        return shape.members.get(name)
    return shape.value if isinstance(shape, MapShape) else None


# --- requests of each protocol ---


def json_requests(
    service: str, operation_names: list[str], members_by_operation: Mapping[str, Any]
) -> st.SearchStrategy[Request]:
    prefix = load_service_model(service).metadata["targetPrefix"]

    def make_strategy(operation: OperationModel) -> st.SearchStrategy[Request]:
        headers = {"Content-Type": JSON, "X-Amz-Target": f"{prefix}.{operation.name}"}
        template = Request(get_signing_name(service), operation, "POST", "/", headers)
        return members(operation, members_by_operation).map(lambda value: replace(template, body=_encode_json(value)))

    valid_requests = st.sampled_from(operation_names).flatmap(
        lambda name: make_strategy(load_operation_model(service, name))
    )
    return valid_requests | valid_requests | valid_requests | damaged_requests(valid_requests)


def _encode_json(value: Any) -> bytes:
    text = json.dumps(value, default=_to_json_type).replace("Infinity", "1e999")
    return re.sub(
        f'"{NESTED_LISTS_PLACEHOLDER.format("([0-9]+)")}"', lambda deep: "[" * int(deep[1]) + "]" * int(deep[1]), text
    ).encode()


def _to_json_type(value: datetime | bytes) -> float | str:
    return value.timestamp() if isinstance(value, datetime) else base64.b64encode(value).decode()


def get_signing_name(service: str) -> str:
    metadata = load_service_model(service).metadata
    return str(metadata.get("signingName", metadata["endpointPrefix"]))


def query_requests(service: str, operation_names: list[str]) -> st.SearchStrategy[Request]:
    version = load_service_model(service).metadata["apiVersion"]

    def make_strategy(operation: OperationModel) -> st.SearchStrategy[Request]:
        fixed = {"Action": operation.name, "Version": version}
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        template = Request(get_signing_name(service), operation, "POST", "/", headers)
        keys = st.sampled_from(["RoleName", "Tags.member.1.Key", "Action", ".".join("a" * 3000)]) | unusual_texts
        keys |= st.sampled_from(["RoleName.member.²", "RoleName.x", "X-Amz-Signature", "RoleName."])
        forms = st.dictionaries(keys, unusual_texts, max_size=3) | valid_values(
            operation.input_shape or _make_empty_structure()
        )
        return forms.map(lambda form: replace(template, body=_encode_form({**fixed, **form})))

    valid_requests = st.sampled_from(operation_names).flatmap(
        lambda name: make_strategy(load_operation_model(service, name))
    )
    return valid_requests | valid_requests | damaged_requests(valid_requests)


def _make_empty_structure() -> Shape:
    return StructureShape("Nothing", {"type": "structure", "members": {}})


def _encode_form(form: Mapping[str, Any]) -> bytes:
    return urlencode(form, errors="surrogatepass").encode()


def rest_requests(
    service: str,
    operation_names: list[str],
    member_values: Mapping[str, st.SearchStrategy[Any]],
    *,
    always_drawn_names: Collection[str] = (),
) -> st.SearchStrategy[Request]:
    """Return requests of REST protocols.

    Args:
        member_values: values of some members, by name. Members that name resources need an entry, because the server
            rarely has a resource with a generated name.
        always_drawn_names: the names of optional members for which every request draws a value from `member_values`.
            For each other optional member, about one request of four draws a value. If the drawn value is None, the
            request does not have the member.
    """
    model = load_service_model(service)
    serializer = create_serializer(model.metadata["protocol"], include_validation=False)

    @st.composite
    def make_strategy(draw: Draw, operation: OperationModel) -> Request:
        shape = operation.input_shape
        assert isinstance(shape, StructureShape)
        request_members = draw(valid_values(shape))
        for name, values in member_values.items():
            is_chosen = name in {*shape.required_members, *always_drawn_names} or draw(st.integers(0, 3)) == 0
            if name in shape.members and is_chosen:
                request_members[name] = draw(values)
        request_members = {name: value for name, value in request_members.items() if value is not None}
        serialized = serializer.serialize_to_request(request_members, operation)
        query = (
            {name: str(value).encode(errors="replace").decode() for name, value in serialized["query_string"].items()}
            if serialized["query_string"]
            else {}
        )
        path = serialized["url_path"]
        if query:
            path += ("&" if "?" in path else "?") + urlencode(query, errors="surrogatepass")
        headers = {
            name: _encode_header(str(value))
            for name, value in serialized["headers"].items()
            if name != "Content-Length"
        }
        body = _encode_body(serialized["body"])
        return Request(get_signing_name(service), operation, serialized["method"], path, headers, body)

    valid_requests = st.sampled_from(operation_names).flatmap(lambda name: make_strategy(model.operation_model(name)))
    return valid_requests | valid_requests | damaged_requests(valid_requests)


def _encode_header(value: str) -> str:
    """Encode text as UTF-8, as clients do: one Latin-1 character per byte. Remove what a header cannot contain: line
    breaks, NUL, and spaces at the ends."""
    return re.sub("[\r\n\0]", "", value.encode(errors="replace").decode("latin-1")).strip()


def _encode_body(body: Any) -> bytes:
    return body if isinstance(body, bytes) else str(body).encode(errors="surrogatepass") if body else b""


# --- damaged requests ---

latin1_texts = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=20).filter(
    lambda text: text.strip() == text
)
HEADER_NAMES = [
    *("Content-Type", "Content-Encoding", "Content-MD5", "X-Amz-Target", "Authorization", "Date", "Range", "If-Match"),
    *("If-Modified-Since", "x-amz-copy-source", "x-amz-copy-source-range", "x-amz-checksum-crc32", "x-amz-trailer"),
    *("x-amz-decoded-content-length", "x-amz-sdk-checksum-algorithm", "x-amz-meta-a", "x-amz-tagging", "Accept"),
    *("x-amz-security-token", "x-amz-acl", "X-Amzn-SageMaker-Target-Variant", "x-amz-expected-bucket-owner", "Cookie"),
]
HEADER_VALUES = [
    *(
        "",
        "bytes=5-1",
        "bytes=-",
        "bytes=0-" + "9" * 30,
        "bytes=²-",
        "AAAA",
        "é",
        "=",
        "gzip",
        "aws-chunked",
        "*",
        '"a"',
    ),
    *("Mon, 01 Jan 0001 00:00:00 +2359", "Fri, 31 Dec 9999 23:59:59 -2359", "0001-01-01", "20260131T235959Z", "-1"),
    *("text/xml", "application/cbor", "application/x-www-form-urlencoded", "multipart/form-data", JSON, "text/plain"),
    *(
        "SageMaker.",
        "SageMaker.Nothing",
        "Logs_20140328.GetLogEvents",
        "/a/../../b",
        "%ff",
        "a%00b",
        "x" * 8000,
        "CRC32",
    ),
    *("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=a/20260101/r/s3/aws4_request, SignedHeaders=host, Signature=0"),
]
QUERY_PARAMETERS = [
    *("uploads", "uploadId", "partNumber", "list-type", "max-keys", "prefix", "delimiter", "marker", "encoding-type"),
    *("continuation-token", "response-content-type", "response-content-disposition", "tagging", "delete", "acl", "X"),
    *("versionId", "location", "start-after", "key-marker", "part-number-marker", "X-Amz-Signature", "AWSAccessKeyId"),
    *("X-Amz-Expires", "X-Amz-Date", "X-Amz-Credential", "Expires", "Action", "max-parts", "max-buckets", "x-id"),
]
BODIES = [b"", b"{", b"[]", b"null", b"\xff\xfe", b"\0" * 100, b"{}" * 1000, b'{"a":1,"a":2}', b"[" * 100_000, b"<a/>"]
BODIES += [
    b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
    b"<Delete>" * 5000,
    b"<Tagging><TagSet/></Tagging>",
    b"9" * 6000,
]
BODIES += ["<?xml version='1.0' encoding='utf-16'?><!DOCTYPE a [<!ENTITY b 'c'>]><Delete>&b;</Delete>".encode("utf-16")]
TARGETS = [
    *(
        "/",
        "//",
        "/.",
        "/..",
        "/../../etc/passwd",
        "/fuzz/../x",
        "/fuzz/%2e%2e/x",
        "/fuzz/%00",
        "/fuzz/%ff",
        "/fuzz//a",
    ),
    *("/endpoints/a/invocations", "/endpoints/%2e%2e/invocations", "/endpoints/a/async-invocations", "/endpoints//"),
    *(
        "/fuzz/" + "a" * 300,
        "/fuzz/" + "a/" * 600,
        "/health",
        "/%",
        "/%zz",
        "/fuzz?" + "a&" * 2000,
        "/*",
        "*",
        "//[",
        "/#a",
    ),
    *(
        "http://other.example/fuzz/a",
        "/fuzz/a?max-keys=%ff",
        "/fuzz?prefix=" + "b" * 300 + "/x",
        "/fuzz/a%0d%0ab",
        "/?",
    ),
]


@st.composite
def damaged_requests(draw: Draw, valid_requests: st.SearchStrategy[Request]) -> Request:
    """Return requests with one to three errors that no client library sends."""
    request: Request = draw(valid_requests)
    for _ in range(draw(st.integers(1, 3))):
        match draw(st.sampled_from(["header", "header", "drop", "method", "target", "query", "body", "cut", "insert"])):
            case "header":
                value = draw(st.sampled_from(HEADER_VALUES) | latin1_texts)
                request = replace(request, headers={**request.headers, draw(st.sampled_from(HEADER_NAMES)): value})
            case "drop" if request.headers:
                name = draw(st.sampled_from(sorted(request.headers)))
                request = replace(
                    request, headers={key: value for key, value in request.headers.items() if key != name}
                )
            case "method":
                methods = ["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "get", "X"]
                request = replace(request, method=draw(st.sampled_from(methods)))
            case "target":
                request = replace(request, target=draw(st.sampled_from(TARGETS)))
            case "query":
                pair = f"{draw(st.sampled_from(QUERY_PARAMETERS))}={quote(draw(unusual_texts), errors='surrogatepass')}"
                request = replace(request, target=f"{request.target}{'&' if '?' in request.target else '?'}{pair}")
            case "cut":
                request = replace(request, body=request.body[: draw(st.integers(0, 40))])
            case "insert":
                position, piece = draw(st.integers(0, 60)), draw(st.binary(max_size=8))
                request = replace(request, body=request.body[:position] + piece + request.body[position:])
            case _:
                request = replace(request, body=draw(st.sampled_from(BODIES) | st.binary(max_size=60)))
    return request
