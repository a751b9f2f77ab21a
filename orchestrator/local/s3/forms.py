"""Uploads with HTML forms: a check of the signed policy, and the conversion of a form to a PutObject request.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit
from xml.etree import ElementTree

from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.forms import Form
from microjobs_orchestrator.local.gateway.request_state import RequestState
from microjobs_orchestrator.local.protocols.http import HEADERS, get_request_id, get_target
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.protocols.rest_routes import get_wire_name
from microjobs_orchestrator.local.protocols.results import OperationResult

UNSIGNED_FIELDS = frozenset({"x-amz-signature", "signature", "awsaccesskeyid", "policy", "file"})
"""Fields that need no condition in the policy."""


def check_policy(form: Form, bucket: str) -> tuple[int, float]:
    """Check a form against its policy. Return the smallest and the largest allowed file size, in bytes.

    Raises ServiceError: AccessDenied if the policy has expired, a condition is false, or a field has no condition;
    InvalidPolicyDocument if the policy is malformed; InvalidArgument if the form has no policy.
    """
    expiration, conditions = _parse_policy(form.get_field("policy"))
    if datetime.now(UTC) >= expiration:
        raise _make_denied_error("Policy expired")
    min_bytes, max_bytes, allowed_fields = 0, float("inf"), set[str]()
    for condition in conditions:
        operator, name, value = _parse_condition(condition)
        if operator == "content-length-range":
            min_bytes, max_bytes = max(min_bytes, int(name)), min(max_bytes, int(value))
            continue
        field_value = bucket if name == "bucket" else form.fields.get(name)
        if field_value is None or not OPERATORS[operator](field_value, value):
            raise _make_denied_error(f"Policy Condition failed: {json.dumps([operator, f'${name}', value])}")
        allowed_fields.add(name)
    extra_fields = {name for name in form.fields if not name.startswith("x-ignore-")} - allowed_fields - UNSIGNED_FIELDS
    if extra_fields:
        raise _make_denied_error(f"Extra input fields: {', '.join(sorted(extra_fields))}")
    return min_bytes, max_bytes


OPERATORS: Mapping[str, Callable[[str, str], bool]] = {"eq": str.__eq__, "starts-with": str.startswith}


def _parse_policy(policy: str) -> tuple[datetime, list[Any]]:
    try:
        content = json.loads(base64.b64decode(policy, validate=True))
        expiration, conditions = datetime.fromisoformat(content["expiration"]), content["conditions"]
    except KeyError as error:
        raise _make_policy_error(f"it has no {error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise _make_policy_error(str(error)) from error
    if not isinstance(conditions, list):
        raise _make_policy_error("its conditions must be a list")
    return expiration if expiration.tzinfo else expiration.replace(tzinfo=UTC), conditions


def _parse_condition(condition: Any) -> tuple[str, str, str]:
    """Return a condition's operator, field name in lower case, and value.

    For `content-length-range`, return the operator, the smallest size and the largest size.
    """
    if isinstance(condition, dict) and len(condition) == 1:
        ((name, value),) = condition.items()
        return "eq", str(name).lower(), str(value)
    if isinstance(condition, list) and len(condition) == 3:
        operator, name, value = str(condition[0]).lower(), str(condition[1]), str(condition[2])
        if operator == "content-length-range" and re.fullmatch(r"\d{1,15} \d{1,15}", f"{name} {value}"):
            return operator, name, value
        if operator in OPERATORS and name.startswith("$"):
            return operator, name[1:].lower(), value
    raise _make_policy_error(f"the condition {condition!r:.200} is not valid")


def _make_policy_error(reason: str) -> ServiceError:
    return ServiceError("InvalidPolicyDocument", f"The form's policy is not valid: {reason}.")


def _make_denied_error(reason: str) -> ServiceError:
    return ServiceError("AccessDenied", f"Invalid according to Policy: {reason}", 403)


@dataclass
class FormFile:
    """Stream of the file in a form. It raises ServiceError if the policy does not allow the file's size."""

    form: Form
    min_bytes: int
    max_bytes: float
    received_bytes: int = 0

    def read(self, size: int, /) -> bytes:
        block = self.form.read(size)
        self.received_bytes += len(block)
        if self.received_bytes > self.max_bytes:
            message = f"Your proposed upload exceeds the maximum allowed size of {self.max_bytes} bytes."
            raise ServiceError("EntityTooLarge", message)
        if not block and self.received_bytes < self.min_bytes:
            message = f"Your proposed upload is smaller than the minimum allowed size of {self.min_bytes} bytes."
            raise ServiceError("EntityTooSmall", message)
        return block


# --- conversion to a PutObject request, and the response ---

NON_HEADER_FIELDS = frozenset(
    {
        "key",
        "bucket",
        "success_action_status",
        "success_action_redirect",
        "redirect",
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-security-token",
    }
)
"""Fields that are not headers of PutObject."""


def convert_to_put_object(state: RequestState, form: Form) -> FormFile:
    """Replace the request, which is an upload form, by a PutObject request. Return the body of the new request.

    Raises ServiceError if the policy does not allow the upload, or a field is not supported.
    """
    target, url, request_id = get_target(state.request)[0], state.request.url, get_request_id(state.request)
    bucket, key = unquote(target.split("/")[1]), _get_key(form)
    file = FormFile(form, *check_policy(form, bucket))
    headers = _get_headers(form)
    uri = f"/{quote(bucket)}/{quote(key)}"
    environ = {**state.request.environ, "REQUEST_METHOD": "PUT", "REQUEST_URI": uri, HEADERS: headers}
    state.request = Request(environ, populate_request=False)

    def format_result(result: OperationResult) -> Response:
        response = _make_response(form, bucket, key, result.members["ETag"], url)
        response.headers["x-amz-request-id"] = request_id
        return response

    state.format_result = format_result
    return file


def _get_key(form: Form) -> str:
    """Return the object's key. `${filename}` stands for the name of the file, without its folders."""
    key = form.get_field("key").replace("${filename}", re.split(r"[/\\]", form.file_name)[-1])
    if not key:
        raise ServiceError("InvalidArgument", "The form's field 'key' is empty: give the object a name.")
    return key


def _get_headers(form: Form) -> dict[str, str]:
    """Return the form's fields as headers of PutObject.

    Raises ServiceError NotImplemented if PutObject has no such header.
    """
    headers = {name: value for name, value in form.fields.items() if name not in NON_HEADER_FIELDS | UNSIGNED_FIELDS}
    if "acl" in headers:
        headers["x-amz-acl"] = headers.pop("acl")
    shape = load_operation_model("s3", "PutObject").input_shape
    known_headers = {get_wire_name(name, member) for name, member in shape.members.items()} if shape else set()
    for name in headers.keys() - known_headers:
        if not name.startswith(("x-amz-meta-", "x-ignore-")):
            raise ServiceError(
                "NotImplemented", f"The form's field {name!r} is not supported by the local server.", 501
            )
    return {**headers, "transfer-encoding": "chunked"}  # the file's length is not known


def _make_response(form: Form, bucket: str, key: str, etag: str, url: str) -> Response:
    """Return the response that the fields of the form select."""
    location = f"{url.rstrip('/')}/{quote(key)}"
    redirect = form.fields.get("success_action_redirect") or form.fields.get("redirect", "")
    if _is_web_address(redirect):
        query = urlencode({"bucket": bucket, "key": key, "etag": etag})
        return Response(status=303, headers={"Location": f"{redirect}{'&' if '?' in redirect else '?'}{query}"})
    status = {"200": 200, "201": 201}.get(form.fields.get("success_action_status", ""), 204)
    headers = {"ETag": etag, "Location": location}
    if status != 201:
        return Response(status=status, headers=headers)
    root = ElementTree.Element("PostResponse")
    for name, text in {"Location": location, "Bucket": bucket, "Key": key, "ETag": etag}.items():
        ElementTree.SubElement(root, name).text = text
    document: bytes = ElementTree.tostring(root, "utf-8", xml_declaration=True)
    return Response(document, 201, headers, content_type="application/xml")


def _is_web_address(text: str) -> bool:
    """Return whether S3 redirects to this address. S3 ignores texts that are not web addresses."""
    try:
        return urlsplit(text).scheme in ("http", "https") and text.isprintable()
    except ValueError:  # such as `http://[`
        return False
