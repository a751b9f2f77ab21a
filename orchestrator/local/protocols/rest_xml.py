"""REST XML, which botocore calls "rest-xml", for S3. The method and the address determine the operation. The members
are in the address, the headers and an XML document, unless the body is the payload. Maps are not supported, because
S3's documents contain none.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from botocore.model import ListShape, OperationModel, Shape, StructureShape
from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols import rest
from microjobs_orchestrator.local.protocols.http import get_request_id
from microjobs_orchestrator.local.protocols.responses import HttpResponse
from microjobs_orchestrator.local.protocols.rest_routes import RestErrorCodes, find_route
from microjobs_orchestrator.local.protocols.results import OperationResult
from microjobs_orchestrator.local.protocols.text import INVALID_XML_CHARACTER, format_text, parse_text

CONTENT_TYPE = "application/xml"
UNKNOWN_OPERATION = ("NotImplemented", 501)

ERROR_CODES = RestErrorCodes(
    unknown_address=("MethodNotAllowed", 405),
    missing_parameter=("InvalidRequest", 400),
    malformed_address=("InvalidURI", 400),
    malformed_value=("InvalidArgument", 400),
    unknown_parameter=UNKNOWN_OPERATION,  # in S3, a query parameter such as `?acl` selects the operation
)

SCHEMA_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
ElementTree.register_namespace("xsi", SCHEMA_INSTANCE)

ROOT_ELEMENTS = {
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
"""Root elements of S3's documents by operation: botocore's model does not state them. For other operations, the root
element has the name of the shape."""

TEXT_DOCUMENTS = {"LocationConstraint"}
"""Root elements that contain only the text of their single member."""


def find_operation(service: str, request: Request) -> str:
    return find_route(service, request, ERROR_CODES).operation.name


# --- requests ---


def parse(operation: OperationModel, request: Request) -> dict[str, Any]:
    return rest.parse_members(operation, request, ERROR_CODES, _parse_document)


def _parse_document(shape: StructureShape, document: bytes) -> dict[str, Any]:
    if not document:
        raise make_malformed_xml_error("the body is empty")
    try:
        text = document.decode()  # another encoding could hide a document type
        if "<!DOCTYPE" in text:  # without a document type there are no entities to expand
            raise make_malformed_xml_error("a document type is not allowed")
        root = ElementTree.fromstring(text)  # noqa: S314
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise make_malformed_xml_error(str(error)) from None
    name = shape.serialization.get("name", shape.name)
    if _get_local_name(root) != name:
        raise make_malformed_xml_error(f"the document is a <{_get_local_name(root)}> and not a <{name}>")
    return _parse_structure(shape, root)


def make_malformed_xml_error(reason: str) -> ServiceError:
    return ServiceError("MalformedXML", f"The XML you provided was not well-formed or not what S3 expects: {reason}.")


def _get_local_name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _parse_element(shape: Shape, element: ElementTree.Element) -> Any:
    if isinstance(shape, StructureShape):
        return _parse_structure(shape, element)
    if isinstance(shape, ListShape):
        return [_parse_element(shape.member, child) for child in element]
    text = element.text or ""
    try:
        return parse_text(shape, text)
    except ValueError:
        raise ServiceError(
            "InvalidArgument", f"{_get_local_name(element)} is {text!r}; its type must be {shape.type_name}."
        ) from None


def _parse_structure(shape: StructureShape, element: ElementTree.Element) -> dict[str, Any]:
    body_members = {name: member for name, member in shape.members.items() if not rest.is_outside_body(member)}
    names_by_element = {_get_element_name(name, member): name for name, member in body_members.items()}
    values: dict[str, Any] = {}
    for child in element:
        if (name := names_by_element.get(_get_local_name(child))) is None:
            raise make_malformed_xml_error(f"<{_get_local_name(element)}> has no <{_get_local_name(child)}>")
        member = body_members[name]
        if isinstance(member, ListShape) and member.serialization.get("flattened"):
            values.setdefault(name, []).append(_parse_element(member.member, child))
        else:
            values[name] = _parse_element(member, child)
    for name in shape.required_members:
        if name in body_members and name not in values:
            raise make_malformed_xml_error(f"<{_get_local_name(element)}> needs a <{name}>")
    return values


def _get_element_name(name: str, member: Shape) -> str:
    """Return the name of a member's elements. A flattened list's elements may have the name of the list's items."""
    location_name: str | None = member.serialization.get("name")
    if isinstance(member, ListShape) and member.serialization.get("flattened") and location_name is None:
        location_name = member.member.serialization.get("name")
    return location_name or name


# --- results ---


def format_result(operation: OperationModel, result: OperationResult, request: Request) -> HttpResponse:
    namespace = operation.service_model.metadata.get("xmlNamespace") or ""

    def format_document(shape: StructureShape, members: Mapping[str, Any], name: str) -> bytes:
        root = ElementTree.Element(name or ROOT_ELEMENTS.get(operation.name, shape.name))
        if namespace:
            root.set("xmlns", namespace)
        if root.tag in TEXT_DOCUMENTS:
            root.text = next(iter(members.values()), None)
        else:
            _fill_structure(root, shape, members)
        return _to_bytes(root)

    response = rest.format_result(operation, result, CONTENT_TYPE, format_document)
    response.headers["x-amz-request-id"] = get_request_id(request)
    return response


def format_error(error: ServiceError, request: Request) -> Response:
    """Format an error. A response with status 204 or 304 has no document."""
    root, request_id = ElementTree.Element("Error"), get_request_id(request)
    texts = {
        "Code": error.code,
        "Message": INVALID_XML_CHARACTER.sub("\ufffd", error.message),
        "Resource": quote(request.path, safe="/~"),
        "RequestId": request_id,
    }
    for name, text in texts.items():
        ElementTree.SubElement(root, name).text = text
    body = b"" if error.status in (204, 304) else _to_bytes(root)
    return Response(body, error.status, {"x-amz-request-id": request_id}, content_type=CONTENT_TYPE)


def _to_bytes(root: ElementTree.Element) -> bytes:
    document: bytes = ElementTree.tostring(root, "utf-8", xml_declaration=True)
    # Without this escape, a parser would read a carriage return as a line feed.
    return document.replace(b"\r", b"&#13;")


def _fill_structure(element: ElementTree.Element, shape: StructureShape, value: Mapping[str, Any]) -> None:
    for name, member in shape.members.items():
        item = value.get(name)
        if item is None:
            continue
        tag = member.serialization.get("name", name)
        if member.serialization.get("xmlAttribute"):
            element.set(f"{{{SCHEMA_INSTANCE}}}{tag.rpartition(':')[2]}", str(item))
        elif isinstance(member, ListShape):
            _fill_list(element, tag, member, item)
        else:
            _fill(ElementTree.SubElement(element, tag), member, item)


def _fill(element: ElementTree.Element, shape: Shape, value: Any) -> None:
    if isinstance(shape, StructureShape):
        _fill_structure(element, shape, value)
    else:
        element.text = _format_text(shape, value)


def _fill_list(element: ElementTree.Element, tag: str, shape: ListShape, items: Any) -> None:
    flattened = shape.serialization.get("flattened")
    parent = element if flattened else ElementTree.SubElement(element, tag)
    item_tag = tag if flattened else shape.member.serialization.get("name", "member")
    for item in items:
        _fill(ElementTree.SubElement(parent, item_tag), shape.member, item)


def _format_text(shape: Shape, value: Any) -> str:
    text = format_text(shape, value, time_format="milliseconds")
    if INVALID_XML_CHARACTER.search(text):
        message = f"{text!r} has characters that XML does not allow; use encoding-type=url."
        raise ServiceError("InvalidArgument", message)
    return text
