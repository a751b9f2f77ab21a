"""AWS query: STS and IAM. The request is a form (`Tags.member.1.Key=…`), the answer is XML."""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl
from xml.etree.ElementTree import Element, SubElement, tostring

from botocore.model import OperationModel
from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.results import members

CONTENT_TYPE = "text/xml"
NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

MOST_DEPTH = 100
"""Dots in the name of a member."""

MAX_DIGITS = 18


def _read_integer(text: str) -> int:
    """An integer of digits alone: Python itself takes `1_0` and digits of other scripts, and refuses 5000 of them."""
    if not re.fullmatch(f"-?[0-9]{{1,{MAX_DIGITS}}}", text):
        raise ValueError(text)
    return int(text)


CONVERT: Mapping[str, Callable[[Any], Any]] = {
    "integer": _read_integer,
    "boolean": {"true": True, "false": False}.__getitem__,
}


def operation_name(request: Request) -> str:
    return dict(_form(request)).get("Action", "")


def _form(request: Request) -> Iterable[tuple[str, str]]:
    """A GET, such as a presigned address, has the form in its query string."""
    body = request.get_data() or request.query_string
    return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)


def parse(operation: OperationModel, request: Request) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    form = list(_form(request))
    if len(dict(form)) != len(form):
        raise ServiceError("MalformedQueryString", "a parameter came more than once; send it once")
    for name, value in form:
        if name in ("Action", "Version") or name.startswith("X-Amz-"):
            continue
        *branches, leaf = name.split(".")
        if len(branches) > MOST_DEPTH:
            raise ServiceError("MalformedInput", f"{name:.40}... is more than {MOST_DEPTH} levels deep")
        node = tree
        for branch in branches:
            node = node.setdefault(branch, {})
            if not isinstance(node, dict):
                raise ServiceError("MalformedInput", f"{name} is a value and a list at once")
        node[leaf] = value
    typed: dict[str, Any] = _typed(operation.input_shape, tree, "") if operation.input_shape else tree
    return typed


def _typed(shape: Any, tree: Any, path: str) -> Any:
    """Text from the form, as JSON would have it. What has no place in the model is left to validation."""
    kind = shape.type_name
    if isinstance(tree, dict) and kind == "structure":
        return {
            name: _typed(shape.members[name], value, f"{path}.{name}") if name in shape.members else value
            for name, value in tree.items()
        }
    try:
        if kind == "list":
            items = tree["member"]
            return [_typed(shape.member, items[number], path) for number in sorted(items, key=_read_integer)]
        return CONVERT.get(kind, str)(tree)
    except (ValueError, KeyError, TypeError) as error:
        raise ServiceError("MalformedInput", f"{path.lstrip('.')} is {tree!r}, which is no {kind}") from error


def answer(operation: OperationModel, result: Mapping[str, Any], request_id: str) -> Response:
    root = _root(f"{operation.name}Response", operation.service_model.metadata["xmlNamespace"])
    shape = operation.output_shape
    if shape is not None:
        _write(SubElement(root, shape.serialization.get("resultWrapper", f"{operation.name}Result")), shape, result)
    SubElement(SubElement(root, "ResponseMetadata"), "RequestId").text = request_id
    return _response(root, 200)


def _write(element: Element, shape: Any, value: Any) -> None:
    if shape.type_name == "structure":
        for name, content in members(shape, value, element.tag).items():
            member = shape.members[name]
            _write(SubElement(element, member.serialization.get("name", name)), member, content)
    elif shape.type_name == "list":
        for item in value:
            _write(SubElement(element, "member"), shape.member, item)
    elif shape.type_name == "timestamp":
        element.text = datetime.fromtimestamp(value, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    elif shape.type_name == "boolean":
        element.text = str(value).lower()
    else:
        element.text = str(value)


def failure(error: ServiceError, request_id: str) -> Response:
    root = Element("ErrorResponse")
    content = SubElement(root, "Error")
    SubElement(content, "Type").text = "Sender" if error.status < 500 else "Receiver"
    SubElement(content, "Code").text = error.code
    SubElement(content, "Message").text = NOT_XML.sub("\ufffd", error.message)
    SubElement(root, "RequestId").text = request_id
    return _response(root, error.status)


def _root(name: str, namespace: str) -> Element:
    return Element(name, {"xmlns": namespace})


def _response(root: Element, status: int) -> Response:
    return Response(tostring(root), status, content_type=CONTENT_TYPE)
