"""The service S3: its operations, and the conversion of requests to calls."""

from collections.abc import Collection, Mapping

from werkzeug import Request

from microjobs_orchestrator.local.errors import ServiceError, is_disk_full
from microjobs_orchestrator.local.gateway.request_state import RequestState
from microjobs_orchestrator.local.gateway.streams import Input
from microjobs_orchestrator.local.protocols.http import get_headers, move_bucket_to_path
from microjobs_orchestrator.local.protocols.results import OperationResult
from microjobs_orchestrator.local.s3 import buckets, copying, forms, listing, multipart, objects, settings
from microjobs_orchestrator.local.s3.body import CHECKSUM_PREFIX, Body
from microjobs_orchestrator.local.s3.call import Call, Operation, check_owner
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.s3.uploads import Uploads

OPERATIONS: Mapping[str, Operation] = {
    **buckets.OPERATIONS,
    **listing.OPERATIONS,
    **objects.OPERATIONS,
    **copying.OPERATIONS,
    **multipart.OPERATIONS,
    **settings.OPERATIONS,
}
"""Supported operations, by the names of S3's API."""


class S3:
    """Performs the operations of authenticated requests. Bodies are verified while they are read, block by block."""

    operations: Collection[str] = OPERATIONS

    def __init__(self, store: ObjectStore, region: str) -> None:
        self._store = store
        self._uploads = Uploads(store)
        self._region = region

    def prepare(self, state: RequestState) -> None:
        """Wrap the body to verify it while it is read, and convert an upload form to a PutObject request."""
        move_bucket_to_path(state.request)
        stream = Input(state.request.environ["wsgi.input"])
        state.cleanups.append(stream.drain)
        source = stream if state.form is None else forms.convert_to_put_object(state, state.form)
        environ = state.request.environ
        environ["wsgi.input"] = Body(_find_body_headers(state.request), source, state.signature)
        environ["wsgi.input_terminated"] = True

    def invoke(self, state: RequestState) -> OperationResult:
        check_owner(state.members)
        body = state.request.environ["wsgi.input"]
        call = Call(self._store, self._uploads, self._region, state.members, body)
        try:
            return OPERATIONS[state.operation.name](call)
        except PermissionError as error:
            message = f"The server has no permission to access {error.filename}: change the owner or mode of the file."
            raise ServiceError("AccessDenied", message, 403) from error
        except OSError as error:
            if is_disk_full(error):
                raise
            message = f"We encountered an internal error: {error.strerror}: {error.filename}."
            raise ServiceError("InternalError", message, 500) from error


def _find_body_headers(request: Request) -> Mapping[str, str]:
    """Return the headers that describe the body. CompleteMultipartUpload has checksums of the object instead."""
    headers = get_headers(request)
    if request.method != "POST" or "uploadId" not in request.args:
        return headers
    return {name: value for name, value in headers.items() if not name.startswith(CHECKSUM_PREFIX)}
