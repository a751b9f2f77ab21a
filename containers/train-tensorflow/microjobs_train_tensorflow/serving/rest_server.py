"""HTTP server with TensorFlow Serving's REST API for the user's handlers; only this machine can reach it."""

import contextlib
import logging
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from microjobs.hosting.body_reader import INCOMPLETE_BODY_ERROR, make_body_too_large_error
from microjobs.hosting.media_types import JSON
from microjobs.hosting.responses import INTERNAL_ERROR, HttpError, HttpResponse, quote

from .rest_api import RestApi

logger = logging.getLogger("microjobs")

TIMEOUT_SECONDS = 60.0
"""Maximum time in seconds until the next bytes of a request arrive."""
MAX_BODY_BYTES = 1 << 30
"""Maximum size of a body. It is higher than that of `/invocations`, because a handler may unpack what it received."""
LENGTH_PATTERN = re.compile("[0-9]{1,18}")
"""Matches a Content-Length with a limited number of digits: Python refuses to parse a number with thousands of
digits."""
MAX_CONNECTIONS = 64
"""Maximum number of connections that are served at the same time. Other connections wait."""


class _RequestHandler(BaseHTTPRequestHandler):
    server: "RestServer"
    timeout = TIMEOUT_SECONDS

    def _answer(self) -> None:
        try:
            response = self._call_api()
        except HttpError as error:
            response = error.response()
        except Exception:
            logger.exception("%s %s failed", self.command, self.path)
            response = INTERNAL_ERROR.response()
        with contextlib.suppress(OSError):  # the client, a user's handler, has closed the connection, or does not read
            self._send(response)

    do_GET = do_POST = _answer  # noqa: N815  the base class defines these names

    def _send(self, response: HttpResponse) -> None:
        self.send_response(response.status)
        self.send_header("content-type", JSON)
        self.send_header("content-length", str(len(response.body)))
        self.end_headers()
        self.wfile.write(response.body)

    def _call_api(self) -> HttpResponse:
        length = self._read_length()
        try:
            body = self.rfile.read(length)
        except TimeoutError:
            raise HttpError(408, f"no part of the body arrived for {self.timeout:g} s: send it faster") from None
        if len(body) < length:
            raise INCOMPLETE_BODY_ERROR
        return self.server.api.answer(self.command, self.path, body)

    def _read_length(self) -> int:
        """Return the size of the body in bytes.

        Raises:
            HttpError: 411, the size is not stated; 400, it is not a number; 413, it is too large.
        """
        text = self.headers.get("content-length")
        if "transfer-encoding" in self.headers or (text is None and self.command == "POST"):
            raise HttpError(411, "the request has no Content-Length: send the body in one piece")
        if not LENGTH_PATTERN.fullmatch(text or "0"):
            raise HttpError(400, f"Content-Length {quote(text)} is not a number of bytes")
        length = int(text or "0")
        if length > MAX_BODY_BYTES:
            raise make_body_too_large_error(f"{length} bytes", MAX_BODY_BYTES)
        return length

    def log_message(self, *_: object) -> None:
        """Log nothing, because all requests come from the user's own handler."""


class RestServer(ThreadingHTTPServer):
    """Serves the REST API on a free port of the loopback interface, in threads, from its creation to `close`.

    A handler sends its requests from the thread that predicts, so other threads must answer them.
    """

    def __init__(self, api: RestApi) -> None:
        super().__init__(("127.0.0.1", 0), _RequestHandler)
        self.api = api
        self.address = f"http://127.0.0.1:{self.server_port}"
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._thread = threading.Thread(target=self.serve_forever, name="rest", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, and close the socket."""
        self.shutdown()
        self._thread.join()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection, as soon as fewer than MAX_CONNECTIONS threads run."""
        self._slots.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()
