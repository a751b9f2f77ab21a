"""Answers in S3's wire form: headers and XML as the service model has them, and errors."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from botocore.model import ListShape, OperationModel, Shape, StructureShape
from werkzeug import Request, Response
from werkzeug.http import http_date

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.s3.wire import request_id

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"

INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
ElementTree.register_namespace("xsi", INSTANCE)

# The names of the documents, which botocore's model does not have.
ROOTS = {
    "CompleteMultipartUpload": "CompleteMultipartUploadResult",
    "CreateMultipartUpload": "InitiateMultipartUploadResult",
    "DeleteObjects": "DeleteResult",
    "GetBucketAccelerateConfiguration": "AccelerateConfiguration",
    "GetBucketAcl": "AccessControlPolicy",
    "GetBucketCors": "CORSConfiguration",
    "GetBucketLifecycleConfiguration": "LifecycleConfiguration",
    "GetBucketLocation": "LocationConstraint",
    "GetBucketLogging": "BucketLoggingStatus",
    "GetBucketNotificationConfiguration": "NotificationConfiguration",
    "GetBucketRequestPayment": "RequestPaymentConfiguration",
    "GetBucketTagging": "Tagging",
    "GetBucketVersioning": "VersioningConfiguration",
    "GetObjectAttributes": "GetObjectAttributesResponse",
    "GetObjectAcl": "AccessControlPolicy",
    "GetObjectTagging": "Tagging",
    "ListBuckets": "ListAllMyBucketsResult",
    "ListMultipartUploads": "ListMultipartUploadsResult",
    "ListObjectVersions": "ListVersionsResult",
    "ListObjects": "ListBucketResult",
    "ListObjectsV2": "ListBucketResult",
    "ListParts": "ListPartsResult",
}

_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


@dataclass(frozen=True)
class Answer:
    """An operation's output members, and how they are sent."""

    members: Mapping[str, Any] = field(default_factory=dict)
    status: int | None = None
    """None: the operation's usual one."""
    body: Iterable[bytes] | None = None
    """The content of an object; closed by the server if it has a `close`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Beside those that the model knows."""


def write_answer(operation: OperationModel, answer: Answer) -> Response:
    status = answer.status or int(operation.http.get("responseCode", 200))
    shape = operation.output_shape
    body: Iterable[bytes] | bytes = answer.body if answer.body is not None else _document(operation, answer.members)
    response = Response(body, status, content_type=None)
    response.direct_passthrough = True
    if isinstance(body, bytes) and body:
        response.headers["Content-Type"] = "application/xml"
    for name, member in (shape.members if shape else {}).items():
        value = answer.members.get(name)
        if value is not None:
            _write_header(response, member, value)
    response.headers.update(answer.headers)
    return response


def error_response(error: ServiceError, request: Request) -> Response:
    """An error as S3 writes it; to HEAD without its document."""
    root = ElementTree.Element("Error")
    resource = quote(request.path, safe="/~")
    own_id = request_id(request)
    message = _NOT_XML.sub("\ufffd", error.message)
    for name, text in (("Code", error.code), ("Message", message), ("Resource", resource), ("RequestId", own_id)):
        ElementTree.SubElement(root, name).text = text
    response = Response(_to_bytes(root), error.status, content_type="application/xml")
    response.headers["x-amz-request-id"] = own_id
    if error.status in (204, 304):
        response.set_data(b"")
    return response


def _write_header(response: Response, member: Shape, value: Any) -> None:
    match member.serialization.get("location"):
        case "header":
            response.headers[member.serialization["name"]] = _header(value)
        case "headers":
            for name, text in value.items():
                response.headers[member.serialization["name"] + name] = text


def _header(value: Any) -> str:
    if isinstance(value, datetime):
        return http_date(value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _document(operation: OperationModel, members: Mapping[str, Any]) -> bytes:
    shape = operation.output_shape
    if shape is None:
        return b""
    payload = shape.serialization.get("payload")
    if payload is not None:
        root = ElementTree.Element(payload, xmlns=NAMESPACE)
        _fill(root, shape.members[payload], members.get(payload, {}))
    elif operation.name in ROOTS:
        root = ElementTree.Element(ROOTS[operation.name], xmlns=NAMESPACE)
        if operation.name == "GetBucketLocation":  # the one document that is a text
            root.text = members.get("LocationConstraint")
        else:
            _fill(root, shape, members)
    else:
        return b""
    return _to_bytes(root)


def _to_bytes(root: ElementTree.Element) -> bytes:
    # A parser would read a carriage return as a line feed.
    document: bytes = ElementTree.tostring(root, "utf-8", xml_declaration=True)
    return document.replace(b"\r", b"&#13;")


def _fill(element: ElementTree.Element, shape: Shape, value: Any) -> None:
    if not isinstance(shape, StructureShape):
        element.text = _text(value)
        return
    for name, member in shape.members.items():
        item = value.get(name)
        if item is None or "location" in member.serialization:
            continue
        tag = member.serialization.get("name", name)
        if member.serialization.get("xmlAttribute"):
            element.set(f"{{{INSTANCE}}}{tag.rpartition(':')[2]}", str(item))
            continue
        if not isinstance(member, ListShape):
            _fill(ElementTree.SubElement(element, tag), member, item)
            continue
        flattened = member.serialization.get("flattened")
        parent = element if flattened else ElementTree.SubElement(element, tag)
        for part in item:
            inner = tag if flattened else member.member.serialization.get("name", "member")
            _fill(ElementTree.SubElement(parent, inner), member.member, part)


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    if _NOT_XML.search(text):
        message = f"{text!r} has characters that XML cannot hold; ask for it with encoding-type=url."
        raise ServiceError("InvalidArgument", message)
    return text
