"""S3 over HTTP, on an object store."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.model import OperationModel, StructureShape
from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError, is_full
from microjobs_orchestrator.local.parity import refuse
from microjobs_orchestrator.local.s3 import buckets, copying, forms, listing, multipart, objects, settings
from microjobs_orchestrator.local.s3.answer import error_response, write_answer
from microjobs_orchestrator.local.s3.body import Input, drain, receive_document
from microjobs_orchestrator.local.s3.call import Call, Operation, check_owner
from microjobs_orchestrator.local.s3.forms import Counted, Form, Policy
from microjobs_orchestrator.local.s3.parse import malformed, parse_document, parse_members
from microjobs_orchestrator.local.s3.protocol import check_query, find_operation, service_model, wire_name
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.s3.uploads import Uploads
from microjobs_orchestrator.local.s3.wire import Incoming, Stream, read_request, request_id

__all__ = ["OPERATIONS", "S3", "error_response"]

OPERATIONS: Mapping[str, Operation] = {
    **buckets.OPERATIONS,
    **listing.OPERATIONS,
    **objects.OPERATIONS,
    **copying.OPERATIONS,
    **multipart.OPERATIONS,
    **settings.OPERATIONS,
}
"""What is supported, by the names of S3's API."""


class S3:
    """Answers requests that are known to be signed by who may send them.

    The body is held against `x-amz-content-sha256`, the signatures of its chunks and the checksums that come with it.
    Files are read and written block by block.
    """

    def __init__(self, store: ObjectStore, region: str) -> None:
        self._store = store
        self._uploads = Uploads(store)
        self._region = region

    def __call__(self, request: Request) -> Response:
        """Answer one request.

        Raises:
            ServiceError: for `error_response`. The request's body has been read then, so the connection can go on.
        """
        stream = Input(request.environ["wsgi.input"])
        try:
            form: Form | None = request.environ.get(forms.FORM)
            response = self._upload(form, request) if form is not None else self._answer(read_request(request), stream)
            response.headers["x-amz-request-id"] = request_id(request)
            return response
        except PermissionError as error:
            message = f"This server may not touch {error.filename}: make it the server's user's."
            raise ServiceError("AccessDenied", message, 403) from error
        except OSError as error:
            if is_full(error):
                raise
            message = f"We encountered an internal error: {error.strerror}: {error.filename}."
            raise ServiceError("InternalError", message, 500) from error
        finally:
            drain(stream)

    def _upload(self, form: Form, request: Request) -> Response:
        """Put the file of a form, as PutObject does."""
        incoming = read_request(request)
        bucket, key = incoming.bucket, forms.key_of(form)
        stream = Counted(form, Policy.check(form, bucket, datetime.now(UTC)))
        incoming = Incoming("PUT", bucket, key, {}, forms.headers_of(form))
        operation = service_model().operation_model("PutObject")
        members = parse_members(operation, incoming)
        refuse("s3", "PutObject", members)
        _check_fields(operation, incoming)
        put = objects.put_object(Call(self._store, self._uploads, self._region, incoming, stream, members))
        return forms.answer(form, bucket, key, put.members["ETag"], request.url)

    def _answer(self, incoming: Incoming, stream: Stream) -> Response:
        operation = find_operation(incoming)
        known = OPERATIONS.get(operation.name)
        if known is None:
            message = f"{operation.name} is not supported here; these are: {', '.join(sorted(OPERATIONS))}."
            raise ServiceError("NotImplemented", message, 501)
        check_query(operation, incoming)
        members = parse_members(operation, incoming)
        check_owner(members)
        members |= _document(operation, incoming, stream)
        refuse("s3", operation.name, members)
        call = Call(self._store, self._uploads, self._region, incoming, stream, members)
        return write_answer(operation, known(call))


def _check_fields(operation: OperationModel, incoming: Incoming) -> None:
    """Refuse fields of a form that would have no effect. Raises ServiceError NotImplemented 501."""
    shape = operation.input_shape
    known = {wire_name(shape, name) for name in shape.members} if shape else set()
    for name in incoming.headers.keys() - known - {"transfer-encoding"}:
        if not name.startswith(("x-amz-meta-", "x-ignore-")):
            raise ServiceError("NotImplemented", f"The form's field {name!r} is not supported here.", 501)


def _document(operation: OperationModel, incoming: Incoming, stream: Stream) -> dict[str, Any]:
    """The member that is the request's body, if that is XML."""
    shape = operation.input_shape
    payload = shape.serialization.get("payload") if shape else None
    if shape is None or payload is None or not isinstance(shape.members[payload], StructureShape):
        return {}
    document = receive_document(incoming, stream)
    if document:
        return {payload: parse_document(shape.members[payload], document)}
    if payload in shape.required_members:
        raise malformed("there is no document")
    return {}
