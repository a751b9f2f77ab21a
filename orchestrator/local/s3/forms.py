"""Uploads by HTML forms: POST with a policy that its signer wrote (presigned POST).

The form's fields come before its file, and the policy's signature is checked before any of the file is read.
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
"""

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

from werkzeug import Request, Response
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.s3.wire import Stream

FORM = "microjobs.form"
"""Where a WSGI environment has the `Form` of its request, once its policy's signature was checked."""

MAX_FIELD_BYTES = 20 << 10
"""Of all fields before the file, as on AWS."""
MAX_PARTS = 100
BLOCK = 64 << 10

UNSIGNED = frozenset({"x-amz-signature", "signature", "awsaccesskeyid", "policy", "file"})
"""Fields that need no condition."""


def is_form(request: Request) -> bool:
    """Whether a request is an upload by a form: nothing else to S3 is signed in its body."""
    return (
        request.method == "POST"
        and request.mimetype == "multipart/form-data"
        and "Authorization" not in request.headers
        and not request.args
    )


class Form:
    """A form whose fields have been read, up to its file.

    Raises:
        ServiceError: it is not a form with a file, or its fields are too long.
    """

    def __init__(self, request: Request, stream: Stream) -> None:
        boundary = request.mimetype_params.get("boundary", "")
        if not re.fullmatch(r"[\x20-\x7e]{1,70}", boundary):
            raise _malformed("the boundary is missing or not valid")
        self._stream = stream
        self._decoder = MultipartDecoder(boundary.encode(), max_parts=MAX_PARTS)
        self._received = 0
        self._has_file = False
        self.fields: dict[str, str] = {}
        """By their names in lower case."""
        self.file_name = ""
        self._blocks = self._content()
        self._read_fields()

    def _events(self) -> Iterator[Event]:
        """The parts of the form; ends with it."""
        while True:
            try:
                event = self._decoder.next_event()
                if isinstance(event, NeedData):
                    self._receive()
                    continue
            except (ValueError, RequestEntityTooLarge) as error:
                raise _malformed(str(error)) from error
            yield event
            if isinstance(event, Epilogue):
                return

    def _receive(self) -> None:
        """Receive a block; the decoder keeps what comes before the first boundary, and headers without an end."""
        if not self._has_file and self._received > MAX_FIELD_BYTES + BLOCK:
            raise _too_long()
        block = self._stream.read(BLOCK)
        self._received += len(block)
        self._decoder.receive_data(block or None)

    def _read_fields(self) -> None:
        self._waiting = self._events()
        name = ""
        for event in self._waiting:
            if isinstance(event, File) or (isinstance(event, Field) and event.name.lower() == "file"):
                self.file_name = event.filename if isinstance(event, File) else ""
                self._has_file = True
                return
            if isinstance(event, Field):
                name = event.name.lower()
                if name in self.fields:
                    raise _malformed(f"the field {name!r} is there twice")
                self.fields[name] = ""
            elif isinstance(event, Data):
                self.fields[name] += event.data.decode(errors="replace")
            if sum(map(len, self.fields.values())) > MAX_FIELD_BYTES:
                raise _too_long()
        raise ServiceError("InvalidArgument", "POST requires exactly one file upload per request.")

    def _content(self) -> Iterator[bytes]:
        for event in self._waiting:
            if not isinstance(event, Data):
                raise _malformed("it ends within the file")
            yield event.data
            if not event.more_data:
                return

    def read(self, size: int, /) -> bytes:  # noqa: ARG002  blocks are as large as they came
        """The next block of the file; empty at its end."""
        for block in self._blocks:
            if block:
                return block
        return b""

    def field(self, name: str) -> str:
        """Raises ServiceError: the form does not have it."""
        if name not in self.fields:
            raise ServiceError("InvalidArgument", f"Bucket POST must contain a field named '{name}'.")
        return self.fields[name]


def _too_long() -> ServiceError:
    message = f"Your POST request fields preceding the upload file exceed {MAX_FIELD_BYTES} bytes."
    return ServiceError("MaxPostPreDataLengthExceededError", message)


def _malformed(reason: str) -> ServiceError:
    message = f"The body of your POST request is not well-formed multipart/form-data: {reason}."
    return ServiceError("MalformedPOSTRequest", message)


# --- what the policy allows ---


@dataclass(frozen=True)
class Policy:
    """What the signer allows: until when, which fields, how many bytes."""

    least: int
    most: float

    @classmethod
    def check(cls, form: Form, bucket: str, now: datetime) -> "Policy":
        """Check a form against its policy.

        Raises:
            ServiceError: AccessDenied 403; it has expired, a condition does not hold, or a field has no condition.
        """
        content = _document(form.fields["policy"])
        if now >= _expiry(content):
            raise _denied("Policy expired")
        least, most, allowed = 0, float("inf"), set[str]()
        for condition in content["conditions"]:
            operator, name, value = _parsed(condition)
            if operator == "content-length-range":
                least, most = max(least, int(name)), min(most, int(value))
                continue
            known = bucket if name == "bucket" else form.fields.get(name)
            if known is None or not OPERATORS[operator](known, value):
                raise _denied(f"Policy Condition failed: {json.dumps([operator, f'${name}', value])}")
            allowed.add(name)
        extra = {name for name in form.fields if not name.startswith("x-ignore-")} - allowed - UNSIGNED
        if extra:
            raise _denied(f"Extra input fields: {', '.join(sorted(extra))}")
        return cls(least, most)


OPERATORS: Mapping[str, Callable[[str, str], bool]] = {"eq": str.__eq__, "starts-with": str.startswith}


def _document(policy: str) -> Mapping[str, Any]:
    try:
        content = json.loads(base64.b64decode(policy, validate=True))
        if isinstance(content["conditions"], list) and isinstance(content["expiration"], str):
            return dict(content)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _invalid(str(error)) from error
    raise _invalid("it needs a list of conditions and an expiration")


def _expiry(content: Mapping[str, Any]) -> datetime:
    try:
        expiry = datetime.fromisoformat(content["expiration"])
    except ValueError as error:
        raise _invalid(f"expiration is {content['expiration']!r}") from error
    return expiry if expiry.tzinfo else expiry.replace(tzinfo=UTC)


def _parsed(condition: Any) -> tuple[str, str, str]:
    """A condition's operator, the field in lower case (or the fewest bytes), and the value (or the most)."""
    if isinstance(condition, dict) and len(condition) == 1:
        ((name, value),) = condition.items()
        return "eq", str(name).lower(), str(value)
    if isinstance(condition, list) and len(condition) == 3:
        operator, name, value = str(condition[0]).lower(), str(condition[1]), str(condition[2])
        if operator == "content-length-range" and re.fullmatch(r"\d{1,15} \d{1,15}", f"{name} {value}"):
            return operator, name, value
        if operator in OPERATORS and name.startswith("$"):
            return operator, name[1:].lower(), value
    raise _invalid(f"the condition {condition!r:.200} is not valid")


def _invalid(reason: str) -> ServiceError:
    return ServiceError("InvalidPolicyDocument", f"The content of the form does not meet the policy's form: {reason}.")


def _denied(reason: str) -> ServiceError:
    return ServiceError("AccessDenied", f"Invalid according to Policy: {reason}", 403)


@dataclass
class Counted:
    """A form's file, held against the number of bytes that the policy allows."""

    form: Form
    policy: Policy
    size: int = 0

    def read(self, size: int, /) -> bytes:
        block = self.form.read(size)
        self.size += len(block)
        if self.size > self.policy.most:
            message = f"Your proposed upload exceeds the maximum allowed size of {self.policy.most} bytes."
            raise ServiceError("EntityTooLarge", message)
        if not block and self.size < self.policy.least:
            message = f"Your proposed upload is smaller than the minimum allowed size of {self.policy.least} bytes."
            raise ServiceError("EntityTooSmall", message)
        return block


# --- the object, and the answer ---


def key_of(form: Form) -> str:
    """The object's key: `${filename}` stands for the name of the file, without its folders."""
    return form.field("key").replace("${filename}", re.split(r"[/\\]", form.file_name)[-1])


def headers_of(form: Form) -> dict[str, str]:
    """The form's fields as the headers that PutObject has for them."""
    known = {name: value for name, value in form.fields.items() if name not in _NOT_HEADERS | UNSIGNED}
    if "acl" in known:
        known["x-amz-acl"] = known.pop("acl")
    return {**known, "transfer-encoding": "chunked"}  # the file's length is not known


_NOT_HEADERS = frozenset(
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


def answer(form: Form, bucket: str, key: str, etag: str, url: str) -> Response:
    """The answer that the form asks for."""
    location = f"{url.rstrip('/')}/{quote(key)}"
    redirect = form.fields.get("success_action_redirect") or form.fields.get("redirect", "")
    if urlsplit(redirect).scheme in ("http", "https") and redirect.isprintable():
        query = urlencode({"bucket": bucket, "key": key, "etag": etag})
        return Response(status=303, headers={"Location": f"{redirect}{'&' if '?' in redirect else '?'}{query}"})
    status = {"200": 200, "201": 201}.get(form.fields.get("success_action_status", ""), 204)
    headers = {"ETag": etag, "Location": location}
    if status != 201:
        return Response(status=status, headers=headers)
    root = ElementTree.Element("PostResponse")
    for name, text in (("Location", location), ("Bucket", bucket), ("Key", key), ("ETag", etag)):
        ElementTree.SubElement(root, name).text = text
    document: bytes = ElementTree.tostring(root, "utf-8", xml_declaration=True)
    return Response(document, 201, headers, content_type="application/xml")
