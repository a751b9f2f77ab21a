"""HTML forms that upload an object to S3 (presigned POST): their fields, and the file after the fields.

The policy in the fields is signed. Its signature is verified before the file is read.
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
"""

import re
from collections.abc import Iterator

from werkzeug import Request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.streams import Stream
from microjobs_orchestrator.local.protocols.http import get_headers

MAX_FIELD_BYTES = 20 << 10
"""Maximum total size of the values of all fields before the file, as on AWS."""
MAX_PARTS = 100
BLOCK_BYTES = 64 << 10


def is_form(request: Request) -> bool:
    """Return whether a request is an upload form. Only upload forms have their signature in the body."""
    return (
        request.method == "POST"
        and "authorization" not in get_headers(request)
        and request.mimetype == "multipart/form-data"
        and not request.args
    )


class Form:
    """An upload form. The constructor reads its fields, and `read` reads its file.

    Raises:
        ServiceError: the body is not a form with a file, or the fields are too long.
    """

    def __init__(self, request: Request, stream: Stream) -> None:
        boundary = request.mimetype_params.get("boundary", "")
        if not re.fullmatch(r"[\x20-\x7e]{1,70}", boundary):
            raise _make_malformed_error("the boundary is missing or not valid")
        self._stream = stream
        self._decoder = MultipartDecoder(boundary.encode(), max_parts=MAX_PARTS)
        self._received_bytes = 0
        self._has_file = self._has_ended = False
        self.fields: dict[str, str] = {}
        """Values by the fields' names in lower case."""
        self.file_name = ""
        self._events = self._parse()
        self._read_fields()

    def _parse(self) -> Iterator[Event]:
        while True:
            try:
                event = self._decoder.next_event()
                if isinstance(event, NeedData):
                    self._receive()
                    continue
            except (ValueError, RequestEntityTooLarge) as error:
                raise _make_malformed_error(str(error)) from error
            yield event
            if isinstance(event, Epilogue):
                return

    def _receive(self) -> None:
        """Receive a block. The blocks before the file have a size limit, because the decoder keeps them in memory."""
        if not self._has_file and self._received_bytes > MAX_FIELD_BYTES + BLOCK_BYTES:
            raise _make_too_long_error()
        block = self._stream.read(BLOCK_BYTES)
        if (self._decoder.buffer + block).endswith(b"--" + self._decoder.boundary + b"-"):
            # werkzeug 3.1 adds a byte to the file if a block ends between the last two hyphens of the last boundary
            block += self._stream.read(1)
        self._received_bytes += len(block)
        self._decoder.receive_data(block or None)

    def _read_fields(self) -> None:
        name, values = "", dict[str, bytes]()
        for event in self._events:
            if isinstance(event, File) or (isinstance(event, Field) and event.name.lower() == "file"):
                self.file_name = event.filename if isinstance(event, File) else ""
                self._has_file = True
                self.fields = {name: value.decode(errors="replace") for name, value in values.items()}
                return
            if isinstance(event, Field):
                name = event.name.lower()
                if name in values:
                    raise _make_malformed_error(f"the field {name!r} is repeated")
                values[name] = b""
            elif isinstance(event, Data):
                values[name] += event.data
            if sum(map(len, values.values())) > MAX_FIELD_BYTES:
                raise _make_too_long_error()
        raise ServiceError("InvalidArgument", "POST requires exactly one file upload per request.")

    def read(self, size: int, /) -> bytes:  # noqa: ARG002  a block has the size in which it was received
        """Return the next block of the file; empty at its end."""
        while not self._has_ended:
            event = next(self._events, None)
            if not isinstance(event, Data):
                raise _make_malformed_error("the body ends within the file")
            self._has_ended = not event.more_data
            if event.data:
                return event.data
        return b""

    def get_field(self, name: str) -> str:
        """Return the value of a field. Raise ServiceError if the form does not have the field."""
        if name not in self.fields:
            raise ServiceError("InvalidArgument", f"Bucket POST must contain a field named '{name}'.")
        return self.fields[name]


def _make_too_long_error() -> ServiceError:
    message = f"Your POST request fields preceding the upload file exceed {MAX_FIELD_BYTES} bytes."
    return ServiceError("MaxPostPreDataLengthExceededError", message)


def _make_malformed_error(reason: str) -> ServiceError:
    message = f"The body of your POST request is not well-formed multipart/form-data: {reason}."
    return ServiceError("MalformedPOSTRequest", message)
