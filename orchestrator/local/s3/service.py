"""The service S3: its operations, and the conversion of requests to calls."""

from collections.abc import Collection, Mapping

from microjobs_orchestrator.local.errors import ServiceError, is_disk_full
from microjobs_orchestrator.local.gateway.exchange import Exchange
from microjobs_orchestrator.local.gateway.streams import Input
from microjobs_orchestrator.local.protocols.answer import Answer
from microjobs_orchestrator.local.protocols.http import get_headers, move_bucket_to_path
from microjobs_orchestrator.local.s3 import buckets, copying, forms, listing, multipart, objects, settings
from microjobs_orchestrator.local.s3.body import Body
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

    def prepare(self, exchange: Exchange) -> None:
        """Wrap the body to verify it while it is read, and turn an upload form into a PutObject request."""
        move_bucket_to_path(exchange.request)
        stream = Input(exchange.request.environ["wsgi.input"])
        exchange.cleanups.append(stream.drain)
        source = stream if exchange.form is None else forms.convert_to_put_object(exchange, exchange.form)
        environ = exchange.request.environ
        environ["wsgi.input"] = Body(get_headers(exchange.request), source, exchange.proof)
        environ["wsgi.input_terminated"] = True

    def invoke(self, exchange: Exchange) -> Answer:
        check_owner(exchange.members)
        body = exchange.request.environ["wsgi.input"]
        call = Call(self._store, self._uploads, self._region, exchange.members, body)
        try:
            return OPERATIONS[exchange.operation.name](call)
        except PermissionError as error:
            message = f"The server has no permission to access {error.filename}: change the owner or mode of the file."
            raise ServiceError("AccessDenied", message, 403) from error
        except OSError as error:
            if is_disk_full(error):
                raise
            message = f"We encountered an internal error: {error.strerror}: {error.filename}."
            raise ServiceError("InternalError", message, 500) from error
