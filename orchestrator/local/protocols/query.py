"""AWS Query ("query" in botocore), for STS, IAM and old clients of CloudWatch. Requests are forms such as
`Tags.member.1.Key=…`, responses are XML.
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl
from xml.etree.ElementTree import Element, SubElement, tostring

from botocore.model import OperationModel
from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.http import get_request_id
from microjobs_orchestrator.local.protocols.results import OperationResult, select_members
from microjobs_orchestrator.local.protocols.text import INVALID_XML_CHARACTER, format_text, parse_integer, parse_text

CONTENT_TYPE = "text/xml"
UNKNOWN_OPERATION = ("UnknownOperationException", 404)

MAX_DEPTH = 100
"""Maximum number of dots in the name of a parameter."""


def find_operation(_: str, request: Request) -> str:
    return dict(_read_form(request)).get("Action", "")


def _read_form(request: Request) -> Iterable[tuple[str, str]]:
    """Return the parameters. A GET request, such as a presigned URL, has them in the query string."""
    body = request.get_data() or request.query_string
    return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)


# --- requests ---


def parse(operation: OperationModel, request: Request) -> dict[str, Any]:
    form = list(_read_form(request))
    if len(dict(form)) != len(form):
        raise ServiceError("MalformedQueryString", "a parameter is repeated; send each once")
    tree: dict[str, Any] = {}
    for name, value in form:
        if name not in ("Action", "Version") and not name.startswith("X-Amz-"):
            _add_parameter(tree, name, value)
    members: dict[str, Any] = _convert(operation.input_shape, tree, "") if operation.input_shape else tree
    return members


def _add_parameter(tree: dict[str, Any], name: str, value: str) -> None:
    """Put the value of `a.b.c` into the mapping `b` in the mapping `a`."""
    *branches, leaf = name.split(".")
    if len(branches) > MAX_DEPTH:
        raise ServiceError("MalformedInput", f"{name:.40}... is more than {MAX_DEPTH} levels deep")
    for branch in branches:
        tree = tree.setdefault(branch, {})
        if not isinstance(tree, dict):
            raise ServiceError("MalformedInput", f"{name} is both a value and a list or structure; send only one")
    tree[leaf] = value


def _convert(shape: Any, tree: Any, path: str) -> Any:
    """Convert texts to the types of the shape. Unknown members stay: validation refuses them."""
    if isinstance(tree, dict) and shape.type_name == "structure":
        return {
            name: _convert(shape.members[name], value, f"{path}.{name}") if name in shape.members else value
            for name, value in tree.items()
        }
    try:
        if shape.type_name == "list":
            items = {} if tree == "" else tree["member"]  # an empty list is sent as an empty text
            return [_convert(shape.member, items[number], path) for number in sorted(items, key=parse_integer)]
        if not isinstance(tree, str):
            raise ValueError(tree)
        return parse_text(shape, tree)
    except (ValueError, KeyError, TypeError) as error:
        message = f"{path.lstrip('.')} is {tree!r}; its type must be {shape.type_name}"
        raise ServiceError("MalformedInput", message) from error


# --- results ---


def format_result(operation: OperationModel, result: OperationResult, request: Request) -> Response:
    root = Element(f"{operation.name}Response", {"xmlns": operation.service_model.metadata["xmlNamespace"]})
    shape = operation.output_shape
    if shape is not None:
        wrapper = SubElement(root, shape.serialization.get("resultWrapper", f"{operation.name}Result"))
        _fill(wrapper, shape, result.members)
    SubElement(SubElement(root, "ResponseMetadata"), "RequestId").text = get_request_id(request)
    return Response(tostring(root), content_type=CONTENT_TYPE)


def _fill(element: Element, shape: Any, value: Any) -> None:
    if shape.type_name == "structure":
        for name, content in select_members(shape, value, element.tag).items():
            member = shape.members[name]
            _fill(SubElement(element, member.serialization.get("name", name)), member, content)
    elif shape.type_name == "list":
        for item in value:
            _fill(SubElement(element, "member"), shape.member, item)
    elif shape.type_name == "map":
        for key, item in value.items():
            entry = SubElement(element, "entry")
            SubElement(entry, "key").text = key
            _fill(SubElement(entry, "value"), shape.value, item)
    else:
        element.text = INVALID_XML_CHARACTER.sub("\ufffd", format_text(shape, value, time_format="seconds"))


def format_error(error: ServiceError, request: Request) -> Response:
    root = Element("ErrorResponse")
    content = SubElement(root, "Error")
    SubElement(content, "Type").text = "Sender" if error.status < 500 else "Receiver"
    SubElement(content, "Code").text = error.code
    SubElement(content, "Message").text = INVALID_XML_CHARACTER.sub("\ufffd", error.message)
    SubElement(root, "RequestId").text = get_request_id(request)
    return Response(tostring(root), error.status, content_type=CONTENT_TYPE)
