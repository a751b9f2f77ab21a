"""Errors of REST XML: S3's."""

from xml.etree.ElementTree import Element, SubElement, tostring

from werkzeug import Response

from orchestrator.local.errors import ServiceError


def failure(error: ServiceError, request_id: str) -> Response:
    root = Element("Error")
    SubElement(root, "Code").text = error.code
    SubElement(root, "Message").text = error.message
    SubElement(root, "RequestId").text = request_id
    return Response(tostring(root), error.status, content_type="application/xml")
